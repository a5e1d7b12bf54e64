//! Placeholders in names: `${pvc.metadata.name}` and its like, replaced by what the provisioner tells of the claim.

use super::Parameters;
use crate::csi::error::{Error, Result};

/// Each placeholder, and the attribute that it stands for.
const PLACEHOLDERS: [(&str, &str); 3] = [
    ("${pvc.metadata.name}", "csi.storage.k8s.io/pvc/name"),
    ("${pvc.metadata.namespace}", "csi.storage.k8s.io/pvc/namespace"),
    ("${pv.metadata.name}", "csi.storage.k8s.io/pv/name"),
];

/// `written`, the value of `key`, with its placeholders replaced.
///
/// # Errors
/// `Invalid` when a placeholder stands for something that is not known here, or is none.
pub(super) fn replaced(parameters: &Parameters, key: &str, written: &str) -> Result<String> {
    let mut name = written.to_owned();
    for (placeholder, attribute) in PLACEHOLDERS {
        if !name.contains(placeholder) {
            continue;
        }
        let value = parameters.get(attribute).ok_or_else(|| {
            Error::invalid(format!(
                "{key} {written:?} needs {attribute}, which was not passed: run external-provisioner with \
                 --extra-create-metadata=true"
            ))
        })?;
        name = name.replace(placeholder, value);
    }
    match name.contains("${") {
        true => Err(Error::invalid(format!(
            "{key} {written:?} has a placeholder that is none: there are ${{pvc.metadata.name}}, ${{pvc.metadata.namespace}} and \
             ${{pv.metadata.name}}"
        ))),
        false => Ok(name),
    }
}
