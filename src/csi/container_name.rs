//! Names of containers for new volumes. Pure.
//!
//! The service allows 3 to 63 characters of `a-z`, `0-9` and single `-`, beginning and ending with a letter or digit. A
//! volume's name (`pvc-<uid>`) usually is one. A name that has to be changed gets a fingerprint of the original, so that
//! two volumes never end in one container and the same volume always ends in the same.

use super::error::{Error, Result};

const LENGTH_MAX: usize = 63;
const LENGTH_MIN: usize = 3;
/// What containerNamePrefix may have: it leaves room for what makes the name unique.
const PREFIX_LENGTH_MAX: usize = 20;

/// The container of the volume `volume`, behind `prefix` if one is wanted.
///
/// # Errors
/// `Invalid` for a prefix that cannot begin a container's name.
pub fn container_name(volume: &str, prefix: Option<&str>) -> Result<String> {
    let wanted = match prefix {
        None => volume.to_owned(),
        Some(prefix) => {
            check_prefix(prefix)?;
            format!("{}-{volume}", prefix.trim_end_matches('-'))
        }
    };
    let mut plain = String::new();
    for c in wanted.to_lowercase().chars() {
        match c {
            'a'..='z' | '0'..='9' => plain.push(c),
            _ if !plain.is_empty() && !plain.ends_with('-') => plain.push('-'),
            _ => {}
        }
    }
    let plain = plain.trim_end_matches('-');
    if plain == wanted && (LENGTH_MIN..=LENGTH_MAX).contains(&plain.len()) {
        return Ok(wanted);
    }
    let print = format!("{:016x}", fingerprint(wanted.as_bytes()));
    let room = LENGTH_MAX - print.len() - 1;
    let head: String = plain.chars().take(room).collect();
    match head.trim_end_matches('-') {
        "" => Ok(format!("pvc-{print}")),
        head => Ok(format!("{head}-{print}")),
    }
}

fn check_prefix(prefix: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let right = (1..=PREFIX_LENGTH_MAX).contains(&prefix.len())
        && prefix.chars().all(allowed)
        && !prefix.starts_with('-')
        && !prefix.contains("--");
    if right {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "containerNamePrefix {prefix:?} cannot begin a container's name: 1 to {PREFIX_LENGTH_MAX} characters of a-z, 0-9 \
         and single -, not beginning with -"
    )))
}

/// FNV-1a, 64 bits: the same on every machine and in every release, which a name must be. Not a defence against names
/// made to collide: CreateVolume compares the volume's name that the container carries.
fn fingerprint(bytes: &[u8]) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    bytes.iter().fold(OFFSET, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(volume: &str) -> String {
        container_name(volume, None).unwrap()
    }

    #[test]
    fn a_name_that_is_allowed_is_kept() {
        let name = "pvc-7f5c4a1e-3d2b-4c6f-9a8b-0123456789ab";
        assert_eq!(named(name), name);
        assert_eq!(container_name(name, Some("team-a")).unwrap(), format!("team-a-{name}"));
    }

    #[test]
    fn a_changed_name_is_allowed_always_the_same_and_unlike_its_neighbours() {
        let long = "x".repeat(128);
        let names =
            ["Data", "data.set", "data--set", "-", "ünï", "ab", long.as_str(), &format!("{long}y"), "a_b", "a b"];
        let mut seen = std::collections::BTreeSet::new();
        for name in names {
            let container = named(name);
            assert!((3..=63).contains(&container.len()), "{container}");
            assert!(container.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'), "{container}");
            assert!(
                !container.contains("--") && !container.starts_with('-') && !container.ends_with('-'),
                "{container}"
            );
            assert_eq!(container, named(name));
            assert!(seen.insert(container), "{name} collides");
        }
    }

    #[test]
    fn a_prefix_that_cannot_be_is_refused() {
        for prefix in ["", "-a", "Team", "a--b", "twenty-one-characters"] {
            assert!(container_name("pvc-1", Some(prefix)).unwrap_err().message.contains("containerNamePrefix"));
        }
    }
}
