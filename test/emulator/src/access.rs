//! Who may do what with a path of a hierarchical account: owner, group, POSIX access list, default list. Reads and writes
//! their texts; must not know paths. Nothing is enforced: every credential of the emulator is a superuser's.
//! Rules: page "Access control lists (ACLs) in Azure Data Lake Storage".

use crate::error::{Code, ServiceError};

/// The owner and group of what a shared key or SAS makes.
pub(crate) const SUPERUSER: &str = "$superuser";
/// What new paths lose where nobody says otherwise (REST page "Path - Create", x-ms-umask).
const UMASK_DEFAULT: u32 = 0o027;
/// The sticky bit of a mode.
const STICKY: u32 = 0o1000;

/// Whom an entry of a list is about. The order is that of the texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    User,
    Group,
    Mask,
    Other,
}

impl Class {
    fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Group => "group",
            Self::Mask => "mask",
            Self::Other => "other",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::User, Self::Group, Self::Mask, Self::Other].into_iter().find(|class| class.name() == text)
    }
}

/// One entry: `user::rwx`, `group:ID:r-x`, `mask::r--`, `other::---`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    class: Class,
    /// Empty for the owning user and group, mask and other.
    id: String,
    bits: u32,
}

/// Owner, group and lists of one path.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    pub(crate) owner: String,
    pub(crate) group: String,
    sticky: bool,
    entries: Vec<Entry>,
    defaults: Vec<Entry>,
}

impl Access {
    /// That of a container's root.
    pub(crate) fn root() -> Self {
        Self::plain(0o750, SUPERUSER)
    }

    fn plain(mode: u32, group: &str) -> Self {
        let entry = |class, shift: u32| Entry { class, id: String::new(), bits: mode >> shift & 7 };
        Self {
            owner: SUPERUSER.to_owned(),
            group: group.to_owned(),
            sticky: mode & STICKY != 0,
            entries: vec![entry(Class::User, 6), entry(Class::Group, 3), entry(Class::Other, 0)],
            defaults: Vec::new(),
        }
    }

    /// That of something new inside `parent`: with a default list, that one within the mode; else the mode without the
    /// umask. `mode` and `umask` are those of the request.
    pub(crate) fn inherited(parent: &Self, directory: bool, mode: Option<u32>, umask: Option<u32>) -> Self {
        let mode = mode.unwrap_or(if directory { 0o777 } else { 0o666 });
        if parent.defaults.is_empty() {
            return Self::plain(mode & !umask.unwrap_or(UMASK_DEFAULT), &parent.group);
        }
        let mut access = Self { entries: parent.defaults.clone(), ..Self::plain(mode, &parent.group) };
        let of_mode = |shift: u32| mode >> shift & 7;
        access.set_bits(|bits, shift| bits & of_mode(shift));
        if directory {
            access.defaults.clone_from(&parent.defaults);
        }
        access
    }

    fn bits(&self, class: Class) -> Option<u32> {
        self.entries.iter().find(|entry| entry.class == class && entry.id.is_empty()).map(|entry| entry.bits)
    }

    /// Changes the three classes that a mode shows: owner, mask (or the owning group, without a mask), other.
    fn set_bits(&mut self, change: impl Fn(u32, u32) -> u32) {
        let shown = if self.bits(Class::Mask).is_some() { Class::Mask } else { Class::Group };
        for entry in self.entries.iter_mut().filter(|entry| entry.id.is_empty()) {
            match entry.class {
                Class::User => entry.bits = change(entry.bits, 6),
                Class::Other => entry.bits = change(entry.bits, 0),
                class if class == shown => entry.bits = change(entry.bits, 3),
                Class::Group | Class::Mask => {}
            }
        }
    }

    /// Sets the mode, as chmod does: with an extended list the group's bits are the mask.
    pub(crate) fn set_mode(&mut self, mode: u32) {
        self.sticky = mode & STICKY != 0;
        self.set_bits(|_, shift| mode >> shift & 7);
    }

    /// `rwxr-x---`, with `t` or `T` for the sticky bit and a `+` where the list is extended.
    pub(crate) fn permissions(&self) -> String {
        let group = self.bits(Class::Mask).or_else(|| self.bits(Class::Group));
        let mut text: String =
            [self.bits(Class::User), group, self.bits(Class::Other)].map(|bits| triple(bits.unwrap_or(0))).concat();
        if self.sticky {
            let executable = text.ends_with('x');
            text.pop();
            text.push(if executable { 't' } else { 'T' });
        }
        if self.entries.len() > 3 || !self.defaults.is_empty() {
            text.push('+');
        }
        text
    }

    /// The lists, as x-ms-acl says them.
    pub(crate) fn acl(&self) -> String {
        let line =
            |prefix: &str, entry: &Entry| format!("{prefix}{}:{}:{}", entry.class.name(), entry.id, triple(entry.bits));
        let own = self.entries.iter().map(|entry| line("", entry));
        own.chain(self.defaults.iter().map(|entry| line("default:", entry))).collect::<Vec<_>>().join(",")
    }

    /// Replaces both lists by those of x-ms-acl.
    ///
    /// # Errors
    /// `InvalidHeaderValue` for a text that is no list, or one without user, group and other.
    pub(crate) fn set_acl(&mut self, text: &str) -> Result<(), ServiceError> {
        let bad = || ServiceError::bad_header("x-ms-acl", text);
        let (mut entries, mut defaults) = (Vec::new(), Vec::new());
        for line in text.split(',').filter(|line| !line.is_empty()) {
            let (list, line) = match line.strip_prefix("default:") {
                Some(line) => (&mut defaults, line),
                None => (&mut entries, line),
            };
            let mut parts = line.split(':');
            let (class, id, bits) = (parts.next(), parts.next(), parts.next());
            let class = class.and_then(Class::parse).ok_or_else(bad)?;
            let bits = bits.and_then(parse_triple).filter(|_| parts.next().is_none()).ok_or_else(bad)?;
            let id = id.unwrap_or_default().to_owned();
            if !id.is_empty() && matches!(class, Class::Mask | Class::Other) {
                return Err(bad());
            }
            list.push(Entry { class, id, bits });
        }
        self.entries = completed(entries).ok_or_else(bad)?;
        self.defaults = if defaults.is_empty() { defaults } else { completed(defaults).ok_or_else(bad)? };
        Ok(())
    }
}

/// A list in order, with the three entries that every list has, and a mask where somebody is named: the union of what the
/// group class holds, if the request does not say it.
fn completed(mut entries: Vec<Entry>) -> Option<Vec<Entry>> {
    let has = |class| entries.iter().any(|entry| entry.class == class && entry.id.is_empty());
    if ![Class::User, Class::Group, Class::Other].into_iter().all(has) {
        return None;
    }
    if !has(Class::Mask) && entries.iter().any(|entry| !entry.id.is_empty()) {
        let in_class = |entry: &&Entry| entry.class == Class::Group || !entry.id.is_empty();
        let bits = entries.iter().filter(in_class).fold(0, |all, entry| all | entry.bits);
        entries.push(Entry { class: Class::Mask, id: String::new(), bits });
    }
    entries.sort();
    let count = entries.len();
    entries.dedup_by(|one, other| one.class == other.class && one.id == other.id);
    (entries.len() == count).then_some(entries)
}

fn triple(bits: u32) -> String {
    ['r', 'w', 'x'].iter().zip([4, 2, 1]).map(|(&c, bit)| if bits & bit != 0 { c } else { '-' }).collect()
}

fn parse_triple(text: &str) -> Option<u32> {
    let letters: Vec<char> = text.chars().collect();
    let [r, w, x] = letters[..] else { return None };
    [(r, 'r', 4), (w, 'w', 2), (x, 'x', 1)].into_iter().try_fold(0, |bits, (given, letter, bit)| match given {
        '-' => Some(bits),
        given if given == letter => Some(bits | bit),
        _ => None,
    })
}

/// Reads x-ms-permissions or x-ms-umask: four octal digits (`0750`), or `rwxr-x---` with `t` or `T` at the end.
///
/// # Errors
/// `InvalidHeaderValue`.
pub(crate) fn parse_mode(header: &'static str, text: &str) -> Result<u32, ServiceError> {
    let bad = || ServiceError::bad_header(header, text);
    if text.len() <= 4 && text.chars().all(|c| c.is_digit(8)) {
        return u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o1777).ok_or_else(bad);
    }
    if text.len() != 9 || !text.is_ascii() {
        return Err(ServiceError::from(Code::InvalidHeaderValue).detail("HeaderName", header));
    }
    let sticky = if text.ends_with(['t', 'T']) { STICKY } else { 0 };
    let plain = text.replace('t', "x").replace('T', "-");
    let part = |at: usize| parse_triple(&plain[at..at + 3]).ok_or_else(bad);
    Ok(sticky | part(0)? << 6 | part(3)? << 3 | part(6)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_read_in_both_forms_and_written_in_one() {
        for (text, shown) in
            [("0750", "rwxr-x---"), ("rw-r--r--", "rw-r--r--"), ("1777", "rwxrwxrwt"), ("rwxrwx--T", "rwxrwx--T")]
        {
            let mut access = Access::root();
            access.set_mode(parse_mode("x-ms-permissions", text).unwrap());
            assert_eq!(access.permissions(), shown, "{text}");
        }
        assert!(parse_mode("x-ms-permissions", "0999").is_err());
        assert!(parse_mode("x-ms-permissions", "rwxrwxrw").is_err());
    }

    #[test]
    fn a_named_entry_makes_a_mask_and_a_mode_sets_it() {
        let mut access = Access::root();
        access.set_acl("user::rwx,user:alice:rw-,group::r--,other::---").unwrap();
        assert_eq!(access.acl(), "user::rwx,user:alice:rw-,group::r--,mask::rw-,other::---");
        assert_eq!(access.permissions(), "rwxrw----+");
        access.set_mode(0o740);
        assert_eq!(access.acl(), "user::rwx,user:alice:rw-,group::r--,mask::r--,other::---");
        assert!(access.set_acl("user::rwx").is_err(), "group and other are missing");
    }

    #[test]
    fn children_inherit_the_default_list_or_else_lose_the_umask() {
        let mut parent = Access::root();
        assert_eq!(Access::inherited(&parent, false, None, None).permissions(), "rw-r-----");
        assert_eq!(Access::inherited(&parent, true, Some(0o777), Some(0)).permissions(), "rwxrwxrwx");
        parent
            .set_acl("user::rwx,group::r-x,other::---,default:user::rwx,default:group::rwx,default:other::r-x")
            .unwrap();
        let child = Access::inherited(&parent, true, None, None);
        assert_eq!(child.permissions(), "rwxrwxr-x+", "the umask does not count beside a default list");
        assert_eq!(Access::inherited(&child, false, None, None).permissions(), "rw-rw-r--");
    }
}
