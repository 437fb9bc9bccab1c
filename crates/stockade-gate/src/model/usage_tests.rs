use proptest::prelude::*;
use serde_json::json;

use super::*;

fn sse(events: &[Value]) -> String {
    events
        .iter()
        .map(|event| format!("event: x\ndata: {event}\n\n"))
        .collect()
}

/// A streamed answer of each wire, and what it used.
fn answers() -> Vec<(Wire, String, Usage)> {
    let anthropic = sse(&[
        json!({"type": "message_start", "message": {"usage": {"input_tokens": 25, "cache_creation_input_tokens": 7, "cache_read_input_tokens": 9, "output_tokens": 1}}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "the \"usage\":{\"output_tokens\":999} trap ü"}}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 15}}),
        json!({"type": "message_stop"}),
    ]);
    let chat = sse(&[
        json!({"choices": [{"delta": {"content": "hi ü"}}], "usage": null}),
        json!({"choices": [], "usage": {"prompt_tokens": 41, "completion_tokens": 15, "prompt_tokens_details": {"cached_tokens": 16}}}),
    ]) + "data: [DONE]\n\n";
    let responses = sse(&[
        json!({"type": "response.output_text.delta", "delta": "hi"}),
        json!({"type": "response.completed", "response": {"usage": {"input_tokens": 41, "output_tokens": 15, "input_tokens_details": {"cached_tokens": 16}}}}),
    ]);
    let openai = Usage {
        input: 25,
        output: 15,
        cache_read: 16,
        cache_write: 0,
    };
    vec![
        (
            Wire::AnthropicMessages,
            anthropic,
            Usage {
                input: 25,
                output: 15,
                cache_read: 9,
                cache_write: 7,
            },
        ),
        (Wire::OpenaiChat, chat, openai),
        (Wire::OpenaiResponses, responses, openai),
    ]
}

fn meter(wire: Wire, kind: &str, pieces: &[&[u8]]) -> Seen {
    let mut meter = Meter::new(wire, Some(kind), false);
    pieces.iter().for_each(|piece| meter.feed(piece));
    meter.finish();
    meter.seen().clone()
}

proptest! {
    /// Wherever the network cuts the stream, the same usage is read.
    #[test]
    fn cuts_do_not_change_the_usage(cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..40), crlf: bool) {
        for (wire, stream, expected) in answers() {
            let stream = if crlf { stream.replace('\n', "\r\n") } else { stream };
            let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
            places.extend([0, stream.len()]);
            places.sort_unstable();
            let pieces: Vec<&[u8]> = places.windows(2).map(|w| &stream.as_bytes()[w[0]..w[1]]).collect();
            let seen = meter(wire, "text/event-stream; charset=utf-8", &pieces);
            prop_assert_eq!(seen.usage_or(1), (expected, false));
        }
    }

    /// Whatever comes, the meter neither panics nor reads usage out of nothing.
    #[test]
    fn noise_is_no_usage(noise in proptest::collection::vec(any::<u8>(), 0..400)) {
        for wire in [Wire::AnthropicMessages, Wire::OpenaiChat, Wire::OpenaiResponses] {
            let seen = meter(wire, "text/event-stream", &[&noise]);
            prop_assert_eq!(seen.usage, Partial::default());
        }
    }
}

#[test]
fn whole_answers_are_read_too() {
    let body = json!({"usage": {"input_tokens": 3, "output_tokens": 4}}).to_string();
    let (head, tail) = body.as_bytes().split_at(9);
    let seen = meter(Wire::AnthropicMessages, "application/json", &[head, tail]);
    assert_eq!(
        seen.usage_or(1),
        (
            Usage {
                input: 3,
                output: 4,
                ..Usage::default()
            },
            false
        )
    );
}

#[test]
fn an_answer_without_usage_or_end_is_estimated_from_its_text() {
    let text = "x".repeat(300);
    let chat = sse(&[json!({"choices": [{"delta": {"content": text}}]})]);
    let seen = meter(
        Wire::OpenaiChat,
        "text/event-stream",
        &[chat.as_bytes(), b"data: [DONE]\n\n"],
    );
    assert_eq!(
        seen.usage_or(50),
        (
            Usage {
                input: 50,
                output: 100,
                ..Usage::default()
            },
            true
        )
    );
    let (wire, whole, _) = answers().remove(0);
    let cut = &whole.as_bytes()[..whole.find("event: x\ndata: {\"type\":\"message_delta\"").unwrap()];
    let (usage, estimated) = meter(wire, "text/event-stream", &[cut]).usage_or(50);
    assert!(estimated && usage.input == 25 && usage.output > 1, "{usage:?}");
}

#[test]
fn errors_inside_a_stream_are_seen() {
    let anthropic = sse(&[json!({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}})]);
    let chat = sse(&[json!({"error": {"message": "busy"}})]);
    let responses = sse(&[json!({"type": "response.failed", "response": {"error": {"message": "busy"}}})]);
    for (wire, stream) in [
        (Wire::AnthropicMessages, anthropic),
        (Wire::OpenaiChat, chat),
        (Wire::OpenaiResponses, responses),
    ] {
        let seen = meter(wire, "text/event-stream", &[stream.as_bytes()]);
        assert_eq!(seen.error.as_deref(), Some("busy"));
    }
}

#[test]
fn an_encoded_answer_is_not_read_and_says_so() {
    let mut meter = Meter::new(Wire::OpenaiChat, Some("application/json"), true);
    meter.feed(br#"{"usage":{"prompt_tokens":1,"completion_tokens":1}}"#);
    meter.finish();
    assert!(meter.seen().unread);
    assert_eq!(meter.seen().usage, Partial::default());
}
