//! The query of a request, decoded. Knows no parameter by name.

use percent_encoding::percent_decode_str;

/// Parameters in the order of the request, names and values percent-decoded.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads what stands behind the `?`. A `+` is a plus sign: the service decodes percent escapes only.
    pub(crate) fn parse(raw: &str) -> Self {
        let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        Self(
            raw.split('&')
                .filter(|pair| !pair.is_empty())
                .map(|pair| match pair.split_once('=') {
                    Some((name, value)) => (decode(name), decode(value)),
                    None => (decode(pair), String::new()),
                })
                .collect(),
        )
    }

    /// The first value of a parameter. Names are compared without regard to case.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(candidate, _)| candidate.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// A parameter that the operation cannot do without.
    pub(crate) fn required(&self, name: &'static str) -> Result<&str, crate::error::ServiceError> {
        self.get(name).ok_or_else(|| {
            crate::error::ServiceError::from(crate::error::Code::MissingRequiredQueryParameter)
                .detail("QueryParameterName", name)
        })
    }

    /// All parameters.
    pub(crate) fn pairs(&self) -> &[(String, String)] {
        &self.0
    }
}
