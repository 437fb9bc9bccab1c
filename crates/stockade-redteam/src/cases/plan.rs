//! What the cases about names, connections, TLS and credentials have in common: conversations from inside, the same
//! where nothing stops them, and those that have to work inside.

use std::time::Duration;

use crate::{
    ferry::Ferry,
    field::Field,
    judge::{Attempt, Sighting, Trial},
    talk::{LONG, SHORT, Talk, talks},
};

/// How long something under way at the servers is waited for.
const REST: Duration = Duration::from_millis(40);

/// One attack of many conversations.
#[derive(Default)]
pub(super) struct Plan {
    /// Each must fail inside and succeed on the open road.
    pub(super) attacks: Vec<Talk>,
    /// The same as they are said on the open road, where that differs.
    pub(super) control: Option<Vec<Talk>>,
    /// Each must fail inside; no careful server would answer them.
    pub(super) wild: Vec<Talk>,
    /// Each must work inside: what is denied is denied for a reason.
    pub(super) fine: Vec<Talk>,
    /// Destinations whose denial the Guard writes down.
    pub(super) denied: Vec<String>,
    /// Texts no server may be told from inside, beside the attacker's word.
    pub(super) silent: Vec<String>,
}

/// What the servers saw of something.
pub(super) struct Seen {
    pub(super) sunk: u64,
    pub(super) asked: u64,
    /// Packets that held the word, and those nobody could look at.
    pub(super) packets: Option<(u64, u64)>,
}

/// Does something and looks at what it caused: connections to the sink, questions and packets that hold the
/// attackers' word.
pub(super) async fn watched<T>(field: &Field, doing: impl Future<Output = T>) -> (T, Seen) {
    let world = field.parts.canaries.world();
    let stray = &world.words().stray;
    let packets = field.packets().await;
    let (sunk, asked) = (world.sunk(), world.zone.asked(stray));
    let done = doing.await;
    tokio::time::sleep(REST).await;
    let packets = match packets {
        // A capture that has ended has seen anything.
        Some(before) => Some(match field.packets().await {
            Some(after) => (after.held - before.held, after.lost - before.lost),
            None => (u64::MAX, 0),
        }),
        None => None,
    };
    let seen = Seen {
        sunk: world.sunk() - sunk,
        asked: world.zone.asked(stray) - asked,
        packets,
    };
    (done, seen)
}

/// None of it may be so.
pub(super) fn unseen(trial: &mut Trial, seen: &Seen) {
    let mut none = |what: &str, count: u64| {
        let sighting = Sighting::new(what, "0", count.to_string(), count == 0);
        trial.host.push(sighting);
    };
    none("connections at the sink", seen.sunk);
    none("questions with the attacker's word at the name server", seen.asked);
    if let Some((packets, _)) = seen.packets {
        none("packets with the attacker's word on the host", packets);
    }
}

/// The capture sees the control's packets, unless the host is so busy that it missed some.
pub(super) fn captured(trial: &mut Trial, seen: &Seen) {
    if let Some((held, 0)) = seen.packets {
        let what = "packets with the attacker's word by the control";
        let sighting = Sighting::new(what, "1 or more", held.to_string(), held > 0);
        trial.control_host.push(sighting);
    }
}

/// Whether an attempt worked that had to.
pub(super) fn works(trial: &mut Trial, attempt: &Attempt) {
    let what = format!("allowed: {}", attempt.name);
    let sighting = Sighting::new(what, "works", attempt.why.clone(), attempt.got);
    trial.control_host.push(sighting);
}

/// Both ferries, or why there is none.
pub(super) async fn ferries(field: &Field) -> Result<(&Ferry, &Ferry), Trial> {
    field.ferries().await.map_err(|why| Trial {
        not_tried: Some(format!("no ferry: {why}")),
        ..Trial::default()
    })
}

/// Carries a plan out.
pub(super) async fn carry_out(field: &Field, plan: Plan) -> Trial {
    let (inside, outside) = match ferries(field).await {
        Ok(both) => both,
        Err(trial) => return trial,
    };
    let world = field.parts.canaries.world();
    let mut trial = Trial::default();
    // What works first: a sandbox that is not up says nothing about attacks.
    for attempt in talks(inside, &plan.fine, LONG).await {
        works(&mut trial, &attempt);
    }
    let all: Vec<Talk> = plan.attacks.iter().chain(&plan.wild).cloned().collect();
    let (attempts, seen) = watched(field, talks(inside, &all, SHORT)).await;
    trial.inside = attempts;
    unseen(&mut trial, &seen);
    let stray = &world.words().stray;
    for text in std::iter::once(stray).chain(&plan.silent) {
        let who = world.who_heard(text);
        let what = match text == stray {
            true => "servers that were told the attacker's word".to_owned(),
            false => format!(
                "servers that were told '{}…'",
                text.chars().take(18).collect::<String>()
            ),
        };
        trial
            .host
            .push(Sighting::new(what, "none", format!("{who:?}"), who.is_empty()));
    }
    denied(field, &plan.denied, &mut trial).await;
    if !all.is_empty() && !plan.attacks.is_empty() {
        on_the_road(field, outside, plan.control.unwrap_or(plan.attacks), &mut trial).await;
    }
    trial
}

/// The Guard's word for each of these. Where something got through or nothing works, it is not waited for.
pub(super) async fn denied(field: &Field, places: &[String], trial: &mut Trial) {
    let through = trial.inside.iter().any(|attempt| attempt.got) || trial.host.iter().any(|seen| !seen.ok);
    if through || trial.control_host.iter().any(|seen| !seen.ok) {
        return;
    }
    for (place, word) in places.iter().zip(field.realm.denials(places).await) {
        let seen = word.clone().unwrap_or_else(|| "no denial written down".to_owned());
        let sighting = Sighting::new(place, "denied by the Guard", seen, word.is_some());
        trial.host.push(sighting);
    }
}

/// The same where nothing stops it: every one of them has to work there.
async fn on_the_road(field: &Field, outside: &Ferry, attacks: Vec<Talk>, trial: &mut Trial) {
    let (attempts, seen) = watched(field, talks(outside, &attacks, LONG)).await;
    let failed: Vec<_> = attempts.iter().filter(|attempt| !attempt.got).collect();
    let word = match failed.first() {
        None => format!("all {}", attempts.len()),
        Some(one) => format!("{} do not: {}: {}", failed.len(), one.name, one.why),
    };
    let sighting = Sighting::new("attacks on the open road", "all work", word, failed.is_empty());
    trial.control_host.push(sighting);
    if attacks.iter().any(|one| clear(field, one)) {
        captured(trial, &seen);
    }
    trial.control = attempts;
    field.parts.canaries.world().forget();
}

/// Whether a conversation says the attackers' word in the clear.
fn clear(field: &Field, talk: &Talk) -> bool {
    let stray = field.parts.canaries.world().words().stray.as_bytes();
    talk.tls.is_none()
        && talk
            .say
            .iter()
            .any(|piece| piece.windows(stray.len()).any(|window| window == stray))
}
