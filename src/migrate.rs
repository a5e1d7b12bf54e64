//! From other drivers to this one: manifests of the FlexVolume driver `azure/blobfuse` and of the Azure Blob CSI driver in, equivalent
//! objects for this driver out, and a sentence for everything that changes.
//!
//! Pure: text in, text out. Whether what comes out would be taken is asked of the very code that takes it ([`crate::csi`]).

mod blob_csi;
mod document;
mod flex;
mod options;
mod pod;

use serde_json::Value;

pub use document::Error;

/// Name of the driver whose volumes need no new object when ours has the same.
pub const BLOB_CSI: &str = "blob.csi.azure.com";

/// How to migrate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Name under which this driver is installed.
    pub driver: String,
    /// Namespace of Secrets that an object names without one, where its claim does not tell.
    pub namespace: String,
    /// Put behind the names of PersistentVolumes. Their source cannot be changed, so one that exists has to make room, or the new
    /// one needs another name.
    pub suffix: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self { driver: BLOB_CSI.to_owned(), namespace: "default".to_owned(), suffix: String::new() }
    }
}

/// What came out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Migration {
    /// Objects to apply, as they were but for what had to change and what the API server adds.
    pub objects: Vec<Value>,
    /// What changes, each with the object that it is about.
    pub warnings: Vec<String>,
    /// Why an object could not be translated.
    pub failures: Vec<String>,
    /// Objects that have nothing to migrate.
    pub untouched: usize,
}

impl Migration {
    /// The objects as YAML.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn yaml(&self) -> Result<String, Error> {
        document::write(&self.objects)
    }
}

/// What became of one object.
enum Outcome {
    /// Nothing in it is ours to change.
    Untouched,
    Translated,
    /// With the reason.
    Failed(String),
}

/// Translates every object of `text`: YAML or JSON, one or many documents, with lists of objects among them.
///
/// # Errors
/// [`Error`] for a text that is no such thing.
pub fn migrate(text: &str, settings: &Settings) -> Result<Migration, Error> {
    let mut migration = Migration::default();
    for mut object in document::read(text)? {
        let name = document::name(&object);
        let mut notes = Vec::new();
        let outcome = translate(&mut object, settings, &mut notes);
        migration.warnings.extend(notes.iter().map(|note| format!("{name}: {note}")));
        match outcome {
            Outcome::Untouched => migration.untouched += 1,
            Outcome::Failed(reason) => migration.failures.push(format!("{name}: {reason}")),
            Outcome::Translated => {
                document::strip(&mut object);
                migration.objects.push(object);
            }
        }
    }
    Ok(migration)
}

fn translate(object: &mut Value, settings: &Settings, notes: &mut Vec<String>) -> Outcome {
    match object.get("kind").and_then(Value::as_str) {
        Some("PersistentVolume") => {
            let outcome = match flex::persistent_volume(object, settings, notes) {
                Outcome::Untouched => blob_csi::persistent_volume(object, settings, notes),
                outcome => outcome,
            };
            if matches!(outcome, Outcome::Translated) {
                rename(object, &settings.suffix);
            }
            outcome
        }
        Some("StorageClass") => blob_csi::storage_class(object, settings, notes),
        _ => pod::translate(object, settings, notes),
    }
}

fn rename(volume: &mut Value, suffix: &str) {
    if let Some(Value::String(name)) = volume.pointer_mut("/metadata/name") {
        name.push_str(suffix);
    }
}

#[cfg(test)]
mod tests;
