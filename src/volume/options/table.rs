//! The table: a row for every mount option that we or blobfuse know.
//!
//! Order: ours first, then mount(8)'s and libfuse's, then blobfuse's by theme. A row without effect says why in words
//! that an operator can act on; a row is refused where going on without its effect would be worse than failing.

mod others;
mod ours;

use super::MountOptions;

/// What an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Nothing, or `=true` and `=false`.
    Flag,
    /// A user or group number.
    Id,
    /// Permission bits in octal.
    Mode,
    /// A duration: `10s`, or plain seconds.
    Duration,
    /// A plain number.
    Number,
    /// Text.
    Text,
}

impl Takes {
    /// What is right, with an example.
    #[must_use]
    pub fn expected(self) -> &'static str {
        match self {
            Self::Flag => "true or false",
            Self::Id => "a number, such as 1000",
            Self::Mode => "permission bits in octal, such as 0755",
            Self::Duration => "seconds or a number with a unit, such as 10s",
            Self::Number => "a number",
            Self::Text => "text",
        }
    }

    /// How a synopsis shows the value.
    #[must_use]
    pub fn placeholder(self) -> &'static str {
        match self {
            Self::Flag => "",
            Self::Id => "=ID",
            Self::Mode => "=OCTAL",
            Self::Duration => "=DURATION",
            Self::Number => "=NUMBER",
            Self::Text => "=TEXT",
        }
    }
}

/// What an option does here. A setter answers a bad value with what it expected.
#[derive(Clone, Copy, Debug)]
pub enum Effect {
    /// It sets something.
    Sets(fn(&mut MountOptions, &str) -> Result<(), String>),
    /// It is accepted and logged as without effect, for this reason.
    None(&'static str),
    /// It fails the mount, for this reason.
    Refused(&'static str),
}

/// One option.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its usual spelling. `_` and `-` are the same everywhere.
    pub name: &'static str,
    /// Its other names.
    pub also: &'static [&'static str],
    /// What it takes.
    pub takes: Takes,
    /// What holds without it, where it sets something.
    pub default: &'static str,
    /// What it does, for people; empty where the effect says it.
    pub doc: &'static str,
    /// What it does, for the parser.
    pub effect: Effect,
}

type Setter = fn(&mut MountOptions, &str) -> Result<(), String>;

const fn sets(name: &'static str, takes: Takes, default: &'static str, doc: &'static str, set: Setter) -> Row {
    Row { name, also: &[], takes, default, doc, effect: Effect::Sets(set) }
}

const fn none(name: &'static str, takes: Takes, reason: &'static str) -> Row {
    Row { name, also: &[], takes, default: "", doc: "", effect: Effect::None(reason) }
}

const fn refused(name: &'static str, takes: Takes, reason: &'static str) -> Row {
    Row { name, also: &[], takes, default: "", doc: "", effect: Effect::Refused(reason) }
}

const fn known_as(row: Row, also: &'static [&'static str]) -> Row {
    Row { also, ..row }
}

fn assign<T>(place: &mut T, value: Result<T, String>) -> Result<(), String> {
    *place = value?;
    Ok(())
}

/// Every option that is known. A name that is not here is an error.
pub const TABLE: &[Row] = &joined::<{ ours::ROWS.len() + others::ROWS.len() }>(ours::ROWS, others::ROWS);

/// One list of two, when it is compiled.
const fn joined<const COUNT: usize>(first: &[Row], second: &[Row]) -> [Row; COUNT] {
    let mut rows = [first[0]; COUNT];
    let mut at = 1;
    while at < COUNT {
        rows[at] = if at < first.len() { first[at] } else { second[at - first.len()] };
        at += 1;
    }
    rows
}
