//! What holds for every pattern and every path.

use proptest::prelude::*;
use serde_json::json;
use stockade_domain::{FileRules, Verdict};

use super::{
    export::{self, ExportedFile, ExportedKind, to_args},
    pattern::{Case, Pattern},
    place::Place,
    tests::{file, names, pattern, plain, policy, write},
};

/// The same matching, written the slow and obvious way.
fn slow(parts: &[&str], names: &[&str]) -> bool {
    match (parts, names) {
        ([], []) => true,
        (["**"], names) => !names.is_empty(),
        (["**", rest @ ..], names) => (0..=names.len()).any(|skip| slow(rest, &names[skip..])),
        ([part, parts @ ..], [name, names @ ..]) => slow_name(part, name) && slow(parts, names),
        _ => false,
    }
}

fn slow_name(pattern: &str, name: &str) -> bool {
    match (pattern.chars().next(), name.chars().next()) {
        (None, None) => true,
        (Some('*'), _) => slow_name(&pattern[1..], name) || (!name.is_empty() && slow_name(pattern, &name[1..])),
        (Some('?'), Some(_)) => slow_name(&pattern[1..], &name[1..]),
        (Some(a), Some(b)) if a == b => slow_name(&pattern[1..], &name[1..]),
        _ => false,
    }
}

prop_compose! {
    fn some_path()(names in prop::collection::vec("[ab.]{1,3}", 1..6)) -> String {
        let names: Vec<_> = names.into_iter().map(|name| if name.chars().all(|c| c == '.') { "a".to_owned() } else { name }).collect();
        names.join("/")
    }
}

prop_compose! {
    fn some_pattern()(
        parts in prop::collection::vec(prop_oneof![Just("**".to_owned()), "[ab?]{1,2}", "[ab]?\\*[ab]?"], 1..5),
        front in any::<bool>(),
        back in any::<bool>(),
    ) -> String {
        format!("{}{}{}", if front { "/" } else { "" }, parts.join("/"), if back { "/" } else { "" })
    }
}

proptest! {
    #[test]
    fn the_matcher_agrees_with_the_slow_one(text in some_pattern(), path in some_path()) {
        let compiled = Pattern::new(&pattern(&text), Case::Exact);
        let body = text.strip_suffix('/').unwrap_or(&text);
        let anywhere = !body.contains('/');
        let mut parts: Vec<&str> = body.strip_prefix('/').unwrap_or(body).split('/').collect();
        if anywhere { parts.insert(0, "**"); }
        parts.dedup_by(|a, b| *a == "**" && a == b);
        let all: Vec<&str> = path.split('/').collect();
        let whole = if text.ends_with('/') { all.len() - 1 } else { all.len() };
        let expected = (1..=whole).any(|length| slow(&parts, &all[..length]));
        prop_assert_eq!(compiled.covers(&names(&path)), expected);
    }

    #[test]
    fn what_covers_a_directory_covers_what_is_in_it(text in some_pattern(), path in some_path(), name in "[ab]{1,3}") {
        let compiled = Pattern::new(&pattern(&text), Case::Exact);
        let below = names(&format!("{path}/{name}"));
        let here = names(&path);
        if compiled.covers(&here) { prop_assert!(compiled.covers(&below)); }
        // And whatever it covers below a link, the link itself is caught.
        let anchored = text.trim_end_matches('/').contains('/') && !text.trim_start_matches('/').starts_with("**");
        if anchored && compiled.covers(&below) {
            prop_assert!(compiled.covers(&here) || compiled.reaches_below(&here));
        }
    }

    #[test]
    fn every_spelling_of_a_place_is_one_place(text in "[ab./]{1,12}") {
        let place = Place::of(&text).unwrap();
        prop_assert_eq!(&Place::of(place.as_str()).unwrap(), &place);
        prop_assert_eq!(&Place::of(&place.absolute()).unwrap(), &place);
        if !text.starts_with('/') {
            prop_assert_eq!(&Place::of(&format!("/workspace/{text}")).unwrap(), &place);
            prop_assert_eq!(&Place::of(&format!("./x/../{text}/.")).unwrap(), &place);
        }
        let clean = |part: &str| part != ".." && (part != "." || place.as_str() == ".");
        prop_assert!(place.as_str().split('/').all(clean));
        prop_assert_eq!(place.is_inside(), !place.as_str().starts_with('/'));
    }

    #[test]
    fn more_denials_never_let_more_through_and_their_order_does_not_matter(
        texts in prop::collection::vec(some_pattern(), 0..4), more in some_pattern(), path in some_path(),
    ) {
        let rules = |texts: &[String]| FileRules {
            deny: texts.iter().map(|text| pattern(text)).collect(),
            ..FileRules::default()
        };
        let refuses = |rules: FileRules| {
            let policy = policy(rules);
            let (left, written) = (policy.evaluate(&plain(&path)), policy.evaluate(&write(json!({ "path": path, "content": "" }))));
            assert_eq!(left.verdict == Verdict::Deny, written.verdict == Verdict::Deny);
            left
        };
        let before = refuses(rules(&texts));
        let first = texts.iter().find(|text| Pattern::new(&pattern(text), Case::Folded).covers(&names(&path)));
        prop_assert_eq!(first.map(|text| format!("env.files.deny:{text}")), (before.verdict == Verdict::Deny).then_some(before.rule));
        let mut all = texts.clone();
        all.push(more);
        let after = refuses(rules(&all));
        prop_assert!(before.verdict != Verdict::Deny || after.verdict == Verdict::Deny);
        all.reverse();
        prop_assert_eq!(refuses(rules(&all)).verdict, after.verdict);
    }

    #[test]
    fn an_export_is_read_back_as_it_was_written(kinds in prop::collection::vec(0..5_u8, 0..20)) {
        let files: Vec<ExportedFile> = kinds.iter().enumerate().map(|(n, kind)| file(&format!("f{n}"), match kind {
            0 => ExportedKind::File,
            1 => ExportedKind::Executable,
            2 => ExportedKind::Link((n % 2 == 0).then(|| "t".to_owned())),
            3 => ExportedKind::Submodule,
            _ => ExportedKind::Removed,
        })).collect();
        prop_assert_eq!(export::from_args(&to_args(&files)), Some(files));
    }
}
