//! Faults on purpose: which rule applies to a request, decided by count, name and seeded dice.
//! Must not know how a fault is carried out.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{operation::Operation, settings};

/// One rule. A rule without limits applies to every request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRule {
    /// Only this operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
    /// Only blobs whose name matches; `*` stands for any text, `?` for one character.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob: Option<String>,
    /// Chance from 0 to 1; without it always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probability: Option<f64>,
    /// How many matching requests are let through first.
    #[serde(default)]
    pub skip: u64,
    /// How often it strikes; without it without end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// What happens.
    pub kind: FaultKind,
}

impl FaultRule {
    /// A rule for every request.
    #[must_use]
    pub fn new(kind: FaultKind) -> Self {
        Self { operation: None, blob: None, probability: None, skip: 0, count: None, kind }
    }

    /// Only for one operation.
    #[must_use]
    pub fn on(mut self, operation: Operation) -> Self {
        self.operation = Some(operation);
        self
    }

    /// Only for blobs whose name matches.
    #[must_use]
    pub fn blob(mut self, glob: &str) -> Self {
        self.blob = Some(glob.to_owned());
        self
    }

    /// At most so often.
    #[must_use]
    pub fn times(mut self, count: u64) -> Self {
        self.count = Some(count);
        self
    }

    /// After so many matching requests.
    #[must_use]
    pub fn after(mut self, skip: u64) -> Self {
        self.skip = skip;
        self
    }

    /// With this chance, from 0 to 1.
    #[must_use]
    pub fn with_probability(mut self, probability: f64) -> Self {
        self.probability = Some(probability);
        self
    }
}

/// What happens to a request that a rule strikes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FaultKind {
    /// An error answer; the operation is not done.
    Status {
        /// HTTP status, such as 503.
        status: u16,
        /// x-ms-error-code; by default one that fits the status.
        #[serde(default)]
        code: Option<String>,
        /// Retry-After, in whole seconds.
        #[serde(default, with = "settings::optional_duration")]
        retry_after: Option<Duration>,
    },
    /// The operation is done; the connection ends behind this many bytes of the answer's body.
    CutBodyAfter {
        /// Bytes of the body that still arrive.
        bytes: u64,
    },
    /// The connection is reset (TCP RST); the operation is not done.
    ResetConnection,
    /// The operation is done; then the connection ends without an answer.
    ReplyLost,
    /// The answer waits: before its head, or behind some bytes of its body.
    Stall {
        /// How long.
        #[serde(with = "settings::duration")]
        duration: Duration,
        /// Bytes of the body in front of the pause; without it before the head.
        #[serde(default)]
        after_bytes: Option<u64>,
    },
    /// Copy Blob answers "pending".
    LeaveCopyPending {
        /// When it completes; without it never.
        #[serde(default, with = "settings::optional_duration")]
        complete_after: Option<Duration>,
    },
}

/// The rules with their counts and the dice.
pub(crate) struct Faults {
    rules: Vec<(FaultRule, u64)>,
    dice: Dice,
}

impl Faults {
    /// Rules that have not struck yet.
    pub(crate) fn new(rules: &[FaultRule], seed: u64) -> Self {
        Self { rules: rules.iter().map(|rule| (rule.clone(), 0)).collect(), dice: Dice(seed) }
    }

    /// Replaces the rules; one that stays as it was keeps its count.
    pub(crate) fn replace(&mut self, rules: &[FaultRule], seed: Option<u64>) {
        let mut old = std::mem::take(&mut self.rules);
        for rule in rules {
            let at = old.iter().position(|(candidate, _)| candidate == rule);
            self.rules.push(at.map_or_else(|| (rule.clone(), 0), |at| old.swap_remove(at)));
        }
        if let Some(seed) = seed {
            self.dice = Dice(seed);
        }
    }

    /// The fault that strikes a request, if any.
    pub(crate) fn strike(&mut self, operation: Operation, blob: &str) -> Option<FaultKind> {
        for (rule, seen) in &mut self.rules {
            let matches = rule.operation.is_none_or(|only| only == operation)
                && rule.blob.as_deref().is_none_or(|glob| glob_matches(glob, blob));
            if !matches {
                continue;
            }
            let due = *seen >= rule.skip && rule.count.is_none_or(|count| *seen < rule.skip.saturating_add(count));
            let strikes = due && rule.probability.is_none_or(|probability| self.dice.roll() < probability);
            // A roll that misses leaves `count` untouched: count is how often it strikes, not how often it is tried.
            if strikes || *seen < rule.skip {
                *seen += 1;
            }
            if strikes {
                return Some(rule.kind.clone());
            }
        }
        None
    }

    /// A number from 0 up to 1.
    pub(crate) fn roll(&mut self) -> f64 {
        self.dice.roll()
    }
}

/// A small counter-based generator (SplitMix64): equal seeds give equal sequences on every machine.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Whether a pattern of `*` and `?` matches a whole name. Linear but for backtracking to the last `*`.
fn glob_matches(glob: &str, name: &str) -> bool {
    let (glob, name): (Vec<char>, Vec<char>) = (glob.chars().collect(), name.chars().collect());
    let (mut g, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        if g < glob.len() && glob[g] == '*' {
            star = Some((g, n));
            g += 1;
        } else if g < glob.len() && (glob[g] == '?' || glob[g] == name[n]) {
            (g, n) = (g + 1, n + 1);
        } else if let Some((at, taken)) = star {
            star = Some((at, taken + 1));
            (g, n) = (at + 1, taken + 1);
        } else {
            return false;
        }
    }
    glob[g..].iter().all(|&c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (glob, name, expected) in [
            ("*.bin", "a.bin", true),
            ("*.bin", "a.bin2", false),
            ("a?c*", "abc", true),
            ("", "x", false),
            ("*a*b", "xaxxb", true),
        ] {
            assert_eq!(glob_matches(glob, name), expected, "{glob} {name}");
        }
    }

    #[test]
    fn a_rule_strikes_as_often_as_it_says_and_after_what_it_skips() {
        let rule = FaultRule::new(FaultKind::ReplyLost).on(Operation::PutBlock).after(1).times(2);
        let mut faults = Faults::new(&[rule], 1);
        let struck: Vec<bool> = (0..5).map(|_| faults.strike(Operation::PutBlock, "a").is_some()).collect();
        assert_eq!(struck, [false, true, true, false, false]);
        assert_eq!(faults.strike(Operation::GetBlob, "a"), None);
    }

    #[test]
    fn equal_seeds_give_equal_faults_at_the_stated_rate() {
        let rules = [FaultRule::new(FaultKind::ResetConnection).with_probability(0.25)];
        let run = |seed| {
            let mut faults = Faults::new(&rules, seed);
            (0..4000).map(|_| faults.strike(Operation::GetBlob, "a").is_some()).collect::<Vec<_>>()
        };
        assert_eq!(run(5), run(5));
        assert_ne!(run(5), run(6));
        let struck = run(5).into_iter().filter(|&struck| struck).count();
        assert!((900..1100).contains(&struck), "{struck}");
    }

    #[test]
    fn rules_are_read_from_json() {
        let text =
            r#"{"operation":"GetBlob","blob":"*.bin","count":2,"kind":{"status":{"status":503,"retry_after":"1s"}}}"#;
        let rule: FaultRule = serde_json::from_str(text).unwrap();
        let kind = FaultKind::Status { status: 503, code: None, retry_after: Some(Duration::from_secs(1)) };
        assert_eq!(rule, FaultRule::new(kind).on(Operation::GetBlob).blob("*.bin").times(2));
        let reset: FaultRule = serde_json::from_str(r#"{"kind":"reset_connection"}"#).unwrap();
        assert_eq!(reset.kind, FaultKind::ResetConnection);
    }
}
