//! The errors of Entra ID: status, OAuth error and sentence by AADSTS code, in the service's own words, since clients tell
//! mistakes apart by them. One table; must not know when a code is due. Source: the page "Microsoft Entra authentication and
//! authorization error codes" and answers quoted in public issues.

use hyper::StatusCode;
use serde_json::json;
use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};
use uuid::Uuid;

use crate::{
    date,
    identity::message::{Message, Reply},
};

const STAMP: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]Z");

/// What sentences are filled in with.
#[derive(Clone, Default)]
pub(crate) struct Facts {
    pub(crate) authority: String,
    pub(crate) tenant: String,
    pub(crate) client: String,
    /// Scope or resource as asked for.
    pub(crate) resource: String,
    pub(crate) issuer: String,
    pub(crate) subject: String,
    pub(crate) audience: String,
    /// SHA-1 of the certificate that an assertion names, in hex.
    pub(crate) thumbprint: String,
    pub(crate) begin: Option<OffsetDateTime>,
    pub(crate) end: Option<OffsetDateTime>,
    /// What a parameter is called, or the reason within a sentence.
    pub(crate) what: String,
}

/// Code, status, OAuth error and sentence; names in braces stand for facts of the request.
#[rustfmt::skip] // One row a line, however long.
const TABLE: &[(u32, u16, &str, &str)] = &[
    (50_027, 401, "invalid_client", "JWT token is invalid or malformed."),
    (50_034, 400, "invalid_grant", "The user account {EUII Hidden} does not exist in the {tenant} directory. To sign into this application, the account must be added to the directory."),
    (50_166, 400, "invalid_request", "Request to External OIDC endpoint failed. Issuer: '{issuer}'."),
    (70_003, 400, "unsupported_grant_type", "The app requested an unsupported grant type '{what}'."),
    (70_011, 400, "invalid_scope", "The provided request must include a 'scope' input parameter. The provided value for the input parameter 'scope' is not valid. The scope {resource} is not valid."),
    (70_021, 400, "invalid_request", "No matching federated identity record found for presented assertion. Assertion Issuer: '{issuer}'. Assertion Subject: '{subject}'. Assertion Audience: '{audience}'. https://learn.microsoft.com/entra/workload-id/workload-identity-federation"),
    (70_025, 401, "invalid_client", "The client '{client}'({client}) has no configured federated identity credentials."),
    (90_002, 400, "invalid_request", "Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud. Check with your subscription administrator, this may happen if there are no active subscriptions for the tenant."),
    (90_033, 503, "temporarily_unavailable", "A transient error has occurred. Please try again."),
    (500_011, 400, "invalid_resource", "The resource principal named {resource} was not found in the tenant named {tenant}. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant. You might have sent your authentication request to the wrong tenant."),
    (700_016, 400, "unauthorized_client", "Application with identifier '{client}' was not found in the directory '{tenant}'. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant. You may have sent your authentication request to the wrong tenant."),
    (700_021, 401, "invalid_client", "Client assertion application identifier doesn't match 'client_id' parameter. Review the documentation at https://learn.microsoft.com/entra/identity-platform/certificate-credentials ."),
    (700_023, 401, "invalid_client", "Client assertion audience claim does not match Realm issuer. Review the documentation at https://learn.microsoft.com/entra/identity-platform/certificate-credentials ."),
    (700_024, 401, "invalid_client", "Client assertion is not within its valid time range. Current time: {now}, assertion valid from {begin}, expiry time of assertion {end}. Review the documentation at https://learn.microsoft.com/entra/identity-platform/certificate-credentials ."),
    (700_027, 401, "invalid_client", "The certificate with identifier used to sign the client assertion is not registered on application. [Reason - {what}, Thumbprint of key used by client: '{thumbprint}', Please visit the Azure Portal, Graph Explorer or directly use MS Graph to see configured keys for app Id '{client}'. Review the documentation at https://docs.microsoft.com/en-us/graph/deployments to determine the corresponding service endpoint and https://docs.microsoft.com/en-us/graph/api/application-get?view=graph-rest-1.0&tabs=http to build a query request URL, such as 'https://graph.microsoft.com/beta/applications/{client}']."),
    (700_211, 401, "invalid_client", "No matching federated identity record found for presented assertion issuer '{issuer}'. Check your federated identity credential Subject, Audience and Issuer against the presented assertion. https://learn.microsoft.com/entra/workload-id/workload-identity-federation"),
    (700_212, 401, "invalid_client", "No matching federated identity record found for presented assertion audience '{audience}'. Check your federated identity credential Subject, Audience and Issuer against the presented assertion. https://learn.microsoft.com/entra/workload-id/workload-identity-federation"),
    (700_213, 401, "invalid_client", "No matching federated identity record found for presented assertion subject '{subject}'. Check your federated identity credential Subject, Audience and Issuer against the presented assertion. https://learn.microsoft.com/entra/workload-id/workload-identity-federation"),
    (900_023, 400, "invalid_request", "Specified tenant identifier '{tenant}' is neither a valid DNS name, nor a valid external domain."),
    (900_144, 400, "invalid_request", "The request body must contain the following parameter: '{what}'."),
    (1_002_012, 400, "invalid_scope", "The provided value for scope {resource} is not valid. Client credential flows must have a scope value with /.default suffixed to the resource identifier (application ID URI)."),
    (5_000_811, 401, "invalid_client", "Unable to verify token signature. The signing key identifier does not match any valid registered keys."),
    (7_000_215, 401, "invalid_client", "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '{client}'."),
    (7_000_218, 401, "invalid_client", "The request body must contain the following parameter: 'client_assertion' or 'client_secret'."),
    (7_000_222, 401, "invalid_client", "The provided client secret keys for app '{client}' are expired. Visit the Azure portal to create new keys for your app: https://aka.ms/NewClientSecret, or consider using certificate credentials for added security: https://aka.ms/certCreds."),
    (7_002_138, 401, "invalid_client", "No matching federated identity record found for presented assertion subject '{subject}'. The subject matches with case-insensitive comparison, but not with case-sensitive comparison. Check your federated identity credential Subject, Audience and Issuer against the presented assertion. https://learn.microsoft.com/entra/workload-id/workload-identity-federation"),
];

/// Status, OAuth error and sentence of a code. A code that is not in the table is a plain invalid request.
pub(crate) fn explain(code: u32, facts: &Facts) -> (u16, &'static str, String) {
    let row = TABLE.iter().find(|(known, ..)| *known == code);
    let &(_, status, error, sentence) = row.unwrap_or(&(0, 400, "invalid_request", "The request is not valid."));
    let time = |at: Option<OffsetDateTime>| date::precise(at.unwrap_or(OffsetDateTime::UNIX_EPOCH));
    let times = [time(Some(OffsetDateTime::now_utc())), time(facts.begin), time(facts.end)];
    let filled = [
        ("{tenant}", &facts.tenant),
        ("{client}", &facts.client),
        ("{resource}", &facts.resource),
        ("{issuer}", &facts.issuer),
        ("{subject}", &facts.subject),
        ("{audience}", &facts.audience),
        ("{thumbprint}", &facts.thumbprint),
        ("{what}", &facts.what),
        ("{now}", &times[0]),
        ("{begin}", &times[1]),
        ("{end}", &times[2]),
    ];
    let sentence = filled.iter().fold(sentence.to_owned(), |text, (name, value)| text.replace(name, value));
    (status, error, sentence)
}

/// The answer with a code.
pub(crate) fn refuse(code: u32, facts: &Facts, message: &Message) -> Reply {
    let (status, error, sentence) = explain(code, facts);
    let (trace, asked) = (Uuid::new_v4().to_string(), message.header("client-request-id"));
    let correlation = if asked.is_empty() { Uuid::new_v4().to_string() } else { asked.to_owned() };
    let stamp = OffsetDateTime::now_utc().format(&STAMP).unwrap_or_default();
    let body = json!({
        "error": error,
        "error_description": format!(
            "AADSTS{code}: {sentence} Trace ID: {trace} Correlation ID: {correlation} Timestamp: {stamp}"
        ),
        "error_codes": [code],
        "timestamp": stamp,
        "trace_id": trace,
        "correlation_id": correlation,
        "error_uri": format!("https://{}/error?code={code}", facts.authority),
    });
    Reply::json(StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST), &body)
        .header("x-ms-request-id", trace)
        .header("client-request-id", correlation)
}
