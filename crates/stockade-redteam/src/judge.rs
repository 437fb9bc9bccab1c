//! From what was seen to a verdict. Pure: no host, no sandbox.

use serde::{Deserialize, Serialize};

/// Errors that say "you may not".
const FORBIDDEN: [i32; 2] = [1, 13];
/// Errors that say "there is no such thing here": ENOENT, EIO (a switched-off TIOCSTI), ENXIO,
/// ENODEV, ENOSYS, EPROTONOSUPPORT, ESOCKTNOSUPPORT, EOPNOTSUPP, EAFNOSUPPORT.
const ABSENT: [i32; 9] = [2, 5, 6, 19, 38, 93, 94, 95, 97];

/// One thing an attacker tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// What, for example `symlink.read`; the same on both sides.
    pub name: String,
    /// Whether the attacker got what it wanted.
    pub got: bool,
    /// What it got, or why not.
    pub why: String,
    /// The kernel's number for the refusal (errno(3)), where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<i32>,
}

/// One thing the host saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sighting {
    /// What was looked at.
    pub what: String,
    /// What must be.
    pub expected: String,
    /// What was.
    pub seen: String,
    /// Whether they agree.
    pub ok: bool,
}

impl Sighting {
    pub(crate) fn new(what: impl Into<String>, expected: impl Into<String>, seen: impl Into<String>, ok: bool) -> Self {
        Self {
            what: what.into(),
            expected: expected.into(),
            seen: seen.into(),
            ok,
        }
    }

    fn sentence(&self) -> String {
        format!("{}: expected {}, saw {}", self.what, self.expected, self.seen)
    }
}

/// Listed reasons for a void case. Every one is in `docs/redteam.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Excuse {
    /// The control needs root and the red team is not root.
    NeedsRoot,
    /// This host's kernel does not have what is attacked.
    KernelLacks,
    /// The backend declares that it cannot enforce the limit on this host.
    NotEnforced,
    /// The sandbox has a kernel of its own, and the host sees none of its processes.
    OwnKernel,
    /// The backend declares that it takes no images.
    NoImages,
    /// The environment opens no name, so nothing is allowed that could be tried.
    NothingAllowed,
}

impl Excuse {
    /// The reason in words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::NeedsRoot => "the control needs root",
            Self::KernelLacks => "this host's kernel does not have it",
            Self::NotEnforced => "the backend declares that it cannot enforce this limit on this host",
            Self::OwnKernel => "the sandbox has a kernel of its own and the host sees none of its processes",
            Self::NoImages => "the backend declares that it takes no images",
            Self::NothingAllowed => "the environment opens no name",
        }
    }
}

/// How a case ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The attack failed inside and works where nothing stops it.
    Passed,
    /// The attack got something, or the host saw that it did.
    Failed,
    /// Nothing is known: the attack does not work where it should either.
    Void,
}

/// Everything seen of one attack.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trial {
    pub(crate) inside: Vec<Attempt>,
    pub(crate) control: Vec<Attempt>,
    pub(crate) host: Vec<Sighting>,
    pub(crate) control_host: Vec<Sighting>,
    /// The attack inside could not be carried out.
    pub(crate) not_tried: Option<String>,
    /// The control could not be carried out.
    pub(crate) no_control: Option<String>,
    /// The sandbox did not survive.
    pub(crate) broken: Option<String>,
    /// The control is known to be impossible here.
    pub(crate) excuse: Option<Excuse>,
    /// What may explain a control without success; nothing else does.
    pub(crate) excusable: &'static [Excuse],
}

/// A verdict and why.
#[derive(Debug, Clone)]
pub(crate) struct Judged {
    pub(crate) verdict: Verdict,
    pub(crate) reasons: Vec<String>,
    pub(crate) excuse: Option<Excuse>,
    /// Attempts without a control of their own: their failure inside proves nothing.
    pub(crate) uncontrolled: Vec<String>,
}

/// Judges one attack. What the attack got counts before everything else, also without control.
pub(crate) fn judge(trial: &Trial, root: bool) -> Judged {
    let got = trial.inside.iter().filter(|attempt| attempt.got);
    let mut reasons: Vec<_> = got.map(|a| format!("{}: {}", a.name, a.why)).collect();
    reasons.extend(trial.host.iter().filter(|s| !s.ok).map(Sighting::sentence));
    reasons.extend(trial.broken.clone());
    let uncontrolled = uncontrolled(trial);
    let judged = |verdict, reasons, excuse| Judged {
        verdict,
        reasons,
        excuse,
        uncontrolled: uncontrolled.clone(),
    };
    if !reasons.is_empty() {
        return judged(Verdict::Failed, reasons, None);
    }
    if let Some(excuse) = trial.excuse {
        return judged(Verdict::Void, vec![excuse.words().to_owned()], Some(excuse));
    }
    if let Some(why) = &trial.not_tried {
        return judged(
            Verdict::Void,
            vec![format!("the attack was not carried out: {why}")],
            None,
        );
    }
    if trial.inside.is_empty() && trial.host.is_empty() {
        return judged(Verdict::Void, vec!["nothing was tried".to_owned()], None);
    }
    let mut missing: Vec<_> = trial.no_control.clone().into_iter().collect();
    missing.extend(trial.control_host.iter().filter(|s| !s.ok).map(Sighting::sentence));
    let works = trial.control.iter().any(|attempt| attempt.got);
    if !works && trial.control_host.is_empty() {
        let failed = trial.control.iter().map(|a| format!("{}: {}", a.name, a.why));
        missing.extend(failed);
        missing.push("the attack does not work where nothing stops it".to_owned());
    }
    if missing.is_empty() {
        return judged(Verdict::Passed, Vec::new(), None);
    }
    let excuse = if trial.no_control.is_none() && trial.control_host.is_empty() {
        excuse(trial, root)
    } else {
        None
    };
    judged(Verdict::Void, missing, excuse)
}

/// Attempts whose twin outside did not succeed.
fn uncontrolled(trial: &Trial) -> Vec<String> {
    let works = |name: &str| trial.control.iter().any(|c| c.got && c.name == name);
    // Where the control is what the host saw, it holds for all of them.
    if !trial.control.iter().any(|attempt| attempt.got) {
        return Vec::new();
    }
    let inside = trial.inside.iter().filter(|attempt| !works(&attempt.name));
    inside.map(|attempt| attempt.name.clone()).collect()
}

/// Why no attempt of a control worked, when its errors have one explanation.
fn excuse(trial: &Trial, root: bool) -> Option<Excuse> {
    let all = |errors: &[i32]| {
        let fits = |attempt: &Attempt| attempt.errno.is_some_and(|errno| errors.contains(&errno));
        !trial.control.is_empty() && trial.control.iter().all(fits)
    };
    let may = |excuse| trial.excusable.contains(&excuse);
    if may(Excuse::KernelLacks) && all(&ABSENT) {
        return Some(Excuse::KernelLacks);
    }
    let either: Vec<_> = FORBIDDEN.into_iter().chain(ABSENT).collect();
    (!root && may(Excuse::NeedsRoot) && all(&either)).then_some(Excuse::NeedsRoot)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(name: &str, got: bool, errno: Option<i32>) -> Attempt {
        Attempt {
            name: name.to_owned(),
            got,
            why: "because".to_owned(),
            errno,
        }
    }

    fn sound() -> Trial {
        Trial {
            inside: vec![attempt("a", false, Some(1)), attempt("b", false, Some(2))],
            control: vec![attempt("a", true, None), attempt("b", false, Some(38))],
            host: vec![Sighting::new("hits", "0", "0", true)],
            ..Trial::default()
        }
    }

    fn verdict(trial: &Trial) -> (Verdict, Option<Excuse>) {
        let judged = judge(trial, false);
        (judged.verdict, judged.excuse)
    }

    #[test]
    fn an_attack_that_fails_inside_and_works_outside_is_a_pass() {
        let judged = judge(&sound(), true);
        assert_eq!(judged.verdict, Verdict::Passed);
        assert_eq!(judged.uncontrolled, ["b"], "the attempt without a control is named");
    }

    #[test]
    fn one_success_is_a_failure_with_or_without_control() {
        let mut trial = sound();
        trial.inside[1].got = true;
        assert_eq!(verdict(&trial).0, Verdict::Failed);
        trial.control.clear();
        assert_eq!(verdict(&trial).0, Verdict::Failed);
        trial.excuse = Some(Excuse::NeedsRoot);
        assert_eq!(
            verdict(&trial).0,
            Verdict::Failed,
            "an excuse for the control excuses no success"
        );
    }

    #[test]
    fn what_the_host_sees_counts_more_than_what_the_attacker_says() {
        let mut trial = sound();
        trial.host.push(Sighting::new("canary", "unchanged", "changed", false));
        let judged = judge(&trial, true);
        assert_eq!(judged.verdict, Verdict::Failed);
        assert!(judged.reasons[0].contains("changed"), "{:?}", judged.reasons);
    }

    #[test]
    fn a_dead_sandbox_is_a_failure() {
        let mut trial = sound();
        trial.broken = Some("it died".to_owned());
        assert_eq!(verdict(&trial).0, Verdict::Failed);
    }

    #[test]
    fn a_control_that_fails_makes_the_case_void_without_an_excuse() {
        let mut trial = sound();
        trial.control = vec![attempt("a", false, Some(5)), attempt("b", false, None)];
        assert_eq!(verdict(&trial), (Verdict::Void, None));
        trial.control.clear();
        assert_eq!(verdict(&trial), (Verdict::Void, None));
        let mut trial = sound();
        trial.control_host.push(Sighting::new("hits", "1", "0", false));
        assert_eq!(verdict(&trial), (Verdict::Void, None), "a canary that hears nobody");
        let mut trial = sound();
        trial.no_control = Some("it broke".to_owned());
        assert_eq!(verdict(&trial), (Verdict::Void, None));
    }

    #[test]
    fn an_attack_that_was_not_carried_out_is_void() {
        let mut trial = sound();
        trial.not_tried = Some("no such program".to_owned());
        assert_eq!(verdict(&trial), (Verdict::Void, None));
        assert_eq!(verdict(&Trial::default()), (Verdict::Void, None));
    }

    #[test]
    fn excuses_are_given_for_one_explanation_only() {
        let mut trial = sound();
        trial.control = vec![attempt("a", false, Some(38)), attempt("b", false, Some(97))];
        assert_eq!(verdict(&trial), (Verdict::Void, None), "the case does not allow it");
        trial.excusable = &[Excuse::KernelLacks, Excuse::NeedsRoot];
        assert_eq!(verdict(&trial), (Verdict::Void, Some(Excuse::KernelLacks)));
        trial.control = vec![attempt("a", false, Some(1)), attempt("b", false, Some(2))];
        assert_eq!(verdict(&trial), (Verdict::Void, Some(Excuse::NeedsRoot)));
        let judged = judge(&trial, true);
        assert_eq!(judged.excuse, None, "root is refused nothing for want of root");
        trial.control.push(attempt("c", false, Some(110)));
        assert_eq!(verdict(&trial), (Verdict::Void, None));
    }
}
