//! List Containers: which containers the account has, with what their metadata says. Only provisioning asks.

use azure_core::http::Method;

use super::{AzureStore, call::ReplyBody, list::texts, new_call};
use crate::blob::{Metadata, Result};

/// One page of the account's containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerPage {
    /// Names and metadata, in the order of their names.
    pub containers: Vec<(String, Metadata)>,
    /// Where the next page starts; `None` at the end.
    pub next_marker: Option<String>,
}

pub(super) async fn list(store: &AzureStore, prefix: &str, marker: Option<&str>) -> Result<ContainerPage> {
    const OPERATION: &str = "List Containers";
    let location = &store.shared.location;
    let account = location.account().to_owned();
    let Some(url) = location.service_url() else {
        return Err(store.invalid(OPERATION, account, "the account has no URL"));
    };
    let mut call = new_call(OPERATION, Method::Get, account, url, true)
        .query("comp", "list")
        .query("include", "metadata")
        .query("prefix", prefix)
        .buffered();
    if let Some(marker) = marker {
        call = call.query("marker", marker);
    }
    let reply = store.engine().ask(&call, &store.limits).await?;
    let ReplyBody::Whole(body) = reply.body else { return Err(store.engine().damaged(&call, "no body")) };
    page(&body).map_err(|reason| store.engine().damaged(&call, reason))
}

/// Reads one page. The error says what is wrong with the answer.
fn page(xml: &[u8]) -> std::result::Result<ContainerPage, String> {
    let mut found = ContainerPage::default();
    for (path, text) in texts(xml)? {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        match path[..] {
            ["EnumerationResults", "Containers", "Container", "Name"] => found.containers.push((text, Metadata::new())),
            ["EnumerationResults", "Containers", "Container", "Metadata", name] => {
                if let Some((_, metadata)) = found.containers.last_mut() {
                    metadata.insert(name.to_lowercase(), text);
                }
            }
            ["EnumerationResults", "NextMarker"] if !text.is_empty() => found.next_marker = Some(text),
            _ => {}
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_names_metadata_and_where_the_next_one_starts() {
        let xml = "<?xml version=\"1.0\"?><EnumerationResults><Prefix>s</Prefix><Containers><Container><Name>s-1</Name>\
                   <Properties><Etag>x</Etag></Properties><Metadata><CreatedBy>a&amp;b</CreatedBy></Metadata></Container>\
                   <Container><Name>s-2</Name><Metadata /></Container></Containers><NextMarker>/a/s-3</NextMarker></EnumerationResults>";
        let found = page(xml.as_bytes()).unwrap();
        assert_eq!(found.containers[0], ("s-1".to_owned(), [("createdby".to_owned(), "a&b".to_owned())].into()));
        assert_eq!(found.containers[1], ("s-2".to_owned(), Metadata::new()));
        assert_eq!(found.next_marker.as_deref(), Some("/a/s-3"));
        assert_eq!(
            page(b"<EnumerationResults><Containers /><NextMarker /></EnumerationResults>").unwrap().next_marker,
            None
        );
        assert!(page(b"<EnumerationResults><Containers>").is_err());
    }
}
