//! The knobs, and how they are read and shown. Sizes are bytes per second, written as `60MiB/s`; times as `10ms`.
//! Must not know what the knobs do.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::faults::FaultRule;

/// What an emulator does beside serving. All of it can be changed while it runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Whether credentials are checked.
    pub auth: bool,
    /// Time that every request waits before it is looked at.
    #[serde(with = "duration")]
    pub latency: Duration,
    /// Up to this much more, at random.
    #[serde(with = "duration")]
    pub jitter: Duration,
    /// Bytes per second of each TCP connection, in each direction.
    #[serde(with = "rate")]
    pub per_connection: Option<u64>,
    /// Bytes per second of all connections together, in each direction.
    #[serde(with = "rate")]
    pub total: Option<u64>,
    /// What goes wrong. The first rule that applies to a request is used.
    pub faults: Vec<FaultRule>,
    /// Where the dice begin: equal seeds and equal requests give equal faults.
    pub seed: u64,
    /// Whether the account's keys, and what is signed with them, may be used (`allowSharedKeyAccess`).
    pub shared_key_access: bool,
    /// Whether the account's network rules shut out every client.
    pub firewall: bool,
    /// Whether the account allows containers to be public.
    pub public_access: bool,
    /// Whether the account has a hierarchical namespace. To be said at the start: what is there does not change its sort.
    pub hierarchical: bool,
    /// Whether a rename gives what moved a new ETag. Not documented; clients have to live with both.
    pub rename_changes_etag: bool,
    /// Paths that one request of a paginated recursive delete looks at. `None`: all of them.
    pub delete_paths_max: Option<usize>,
    /// Bearer tokens that are accepted over TLS, each with full rights.
    pub bearer_tokens: Vec<String>,
    /// How far the service's clock is ahead: leases and SAS expire without waiting.
    #[serde(with = "duration")]
    pub clock_ahead: Duration,
    /// How long the name of a deleted container stays taken.
    #[serde(with = "duration")]
    pub container_delete_time: Duration,
    /// How many requests `/__emulator/requests` remembers.
    pub request_log: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            auth: true,
            latency: Duration::ZERO,
            jitter: Duration::ZERO,
            per_connection: None,
            total: None,
            faults: Vec::new(),
            seed: 1,
            shared_key_access: true,
            firewall: false,
            public_access: true,
            hierarchical: false,
            rename_changes_etag: false,
            delete_paths_max: None,
            bearer_tokens: Vec::new(),
            clock_ahead: Duration::ZERO,
            container_delete_time: Duration::ZERO,
            request_log: 0,
        }
    }
}

impl Settings {
    /// These settings with the members of a JSON object in place of their own.
    ///
    /// # Errors
    /// A sentence that names the member that is unknown or cannot be read.
    pub fn with_json(&self, patch: &serde_json::Value) -> Result<Self, String> {
        let Some(patch) = patch.as_object() else { return Err("settings are a JSON object".to_owned()) };
        let mut all = serde_json::to_value(self).map_err(|error| error.to_string())?;
        if let Some(all) = all.as_object_mut() {
            all.extend(patch.clone());
        }
        serde_json::from_value(all).map_err(|error| error.to_string())
    }
}

/// Reads `60MiB/s`, `60MiB`, `1000000` as bytes (per second).
///
/// # Errors
/// A sentence with the forms that are understood.
pub fn parse_rate(text: &str) -> Result<u64, String> {
    let number = text.trim().trim_end_matches("/s").trim();
    let digits = number.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(number.len());
    let (value, unit) = number.split_at(digits);
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1u64,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        _ => 0,
    };
    match value.parse::<f64>() {
        Ok(value) if factor > 0 && value > 0.0 => Ok((value * factor as f64) as u64),
        _ => Err(format!("\"{text}\" is no rate; write bytes per second such as 60MiB/s, 100MB/s or 1000000")),
    }
}

/// Durations as text.
pub(crate) mod duration {
    use super::{Deserialize, Deserializer, Duration, Serializer};

    pub(crate) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&humantime::format_duration(*value))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(from)?;
        humantime::parse_duration(&text)
            .map_err(|error| serde::de::Error::custom(format!("\"{text}\" is no time such as 10ms or 2s: {error}")))
    }
}

/// Durations that may be missing.
pub(crate) mod optional_duration {
    use super::{Deserialize, Deserializer, Duration, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(value: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        value.map(|value| humantime::format_duration(value).to_string()).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| humantime::parse_duration(&text)).transpose().map_err(serde::de::Error::custom)
    }
}

/// Rates as text or number.
mod rate {
    use super::{Deserialize, Deserializer, Serialize, Serializer, parse_rate};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Number(u64),
        Text(String),
    }

    pub(super) fn serialize<S: Serializer>(value: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
        value.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
        match Option::<Form>::deserialize(from)? {
            None | Some(Form::Number(0)) => Ok(None),
            Some(Form::Number(number)) => Ok(Some(number)),
            Some(Form::Text(text)) => parse_rate(&text).map(Some).map_err(serde::de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_changes_what_it_names_and_refuses_what_it_does_not_know() {
        let settings = Settings { seed: 7, ..Settings::default() };
        let patch = serde_json::json!({"latency": "10ms", "per_connection": "60MiB/s"});
        let changed = settings.with_json(&patch).unwrap();
        assert_eq!((changed.latency, changed.seed), (Duration::from_millis(10), 7));
        assert_eq!(changed.per_connection, Some(60 << 20));
        assert!(settings.with_json(&serde_json::json!({"latencie": "10ms"})).unwrap_err().contains("latencie"));
        assert_eq!(changed.with_json(&serde_json::json!({"per_connection": null})).unwrap().per_connection, None);
    }
}
