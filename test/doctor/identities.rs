//! There is no token, or not the right one.

use std::os::unix::fs::PermissionsExt as _;

use azblob_csi::finding::Finding;
use blob_emulator::{ClientCertificate, IdentityFault, IdentityFaultKind, IdentityService, subject_of};
use tonic::Code;

use crate::clinic::{Case, Clinic};

pub const TENANT: &str = "11111111-1111-1111-1111-111111111111";
pub const CLIENT: &str = "22222222-2222-2222-2222-222222222222";
pub const SECRET: &str = "client~secret~that~nobody~may~see";
const ISSUER: &str = "https://oidc.example.com/cluster";

/// The environment of a service principal with its secret.
pub const PRINCIPAL: [(&str, &str); 3] =
    [("AZURE_CLIENT_ID", CLIENT), ("AZURE_TENANT_ID", TENANT), ("AZURE_CLIENT_SECRET", SECRET)];

/// Adds the application with its secret and without a role; returns its object id.
pub fn application(clinic: &Clinic) -> String {
    clinic.services.tenant(TENANT).application(CLIENT).secret(SECRET).object_id()
}

impl Clinic {
    /// A case of a service principal.
    fn principal(&self, finding: Finding, says: &[&str]) -> Case {
        self.over_tls(Case::new(finding, says).with_all(&PRINCIPAL).option("auth=spn"))
    }

    /// Entra ID refuses with this code, once for the doctor, once for the mount and once for the stage.
    fn assert_refused(&self, code: u32, finding: Finding, says: &[&str]) {
        self.services.fault(IdentityFault::new(IdentityService::Authority, IdentityFaultKind::Refuse(code)));
        self.assert_found(&self.principal(finding, says).stages(Code::PermissionDenied));
        self.services.clear_faults();
    }
}

#[test]
fn each_mistake_of_an_application_is_told_apart() {
    let clinic = Clinic::new();
    let _ = application(&clinic);
    let _ = clinic.services.tenant(TENANT).application("expired").expired_secret(SECRET);
    let denied = Code::PermissionDenied;
    let only = |names: &[&'static str], finding, says: &[&str]| {
        let kept: Vec<_> = PRINCIPAL.into_iter().filter(|(name, _)| names.contains(name)).collect();
        clinic.over_tls(Case::new(finding, says).with_all(&kept).option("auth=spn")).stages(Code::InvalidArgument)
    };
    let none = [("PATH", "/nonexistent"), ("MSI_ENDPOINT", "http://127.0.0.1:9")];
    for case in [
        only(&[], Finding::AuthIncomplete, &["AZURE_STORAGE_SPN_CLIENT_ID", "client-id"]),
        only(&["AZURE_CLIENT_ID"], Finding::AuthIncomplete, &["AZURE_STORAGE_SPN_TENANT_ID"]),
        only(&["AZURE_CLIENT_ID", "AZURE_TENANT_ID"], Finding::AuthIncomplete, &["AZURE_CLIENT_SECRET"]),
        clinic
            .principal(Finding::AadSecretWrong, &["AADSTS7000215", "not its ID"])
            .with("AZURE_CLIENT_SECRET", "wrong")
            .stages(denied),
        clinic
            .principal(Finding::AadSecretExpired, &["AADSTS7000222", "az ad app credential reset --id expired"])
            .with("AZURE_CLIENT_ID", "expired")
            .stages(denied),
        clinic
            .principal(Finding::AadApplicationUnknown, &["AADSTS700016", "nobody", TENANT])
            .with("AZURE_CLIENT_ID", "nobody")
            .stages(denied),
        clinic
            .principal(Finding::AadTenantUnknown, &["AADSTS90002", "https://login.microsoftonline.com"])
            .with("AZURE_TENANT_ID", "33333333-3333-3333-3333-333333333333")
            .stages(denied),
        clinic
            .principal(Finding::TenantMalformed, &["no tenant", "contoso"])
            .with("AZURE_TENANT_ID", "no tenant")
            .stages(Code::InvalidArgument),
        clinic
            .principal(Finding::AuthorityMalformed, &["https://HOST"])
            .with("AZURE_AUTHORITY_HOST", "http://login.microsoftonline.com")
            .stages(Code::InvalidArgument),
        clinic
            .principal(Finding::AuthorityUnreachable, &["login.nowhere.example", "https_proxy"])
            .with("AZURE_AUTHORITY_HOST", "https://login.nowhere.example")
            .stages(Code::Unavailable),
        clinic.principal(Finding::TokenOverHttp, &["https endpoint"]).at(clinic.http()).stages(denied),
        clinic
            .over_tls(
                Case::new(Finding::CertificateFile, &["/no/such/certificate.pem", "PEM"])
                    .with_all(&PRINCIPAL[..2])
                    .with("AZURE_CLIENT_CERTIFICATE_PATH", "/no/such/certificate.pem")
                    .option("auth=spn"),
            )
            .stages(denied),
        clinic
            .over_tls(Case::new(Finding::CliMissing, &["az login"]).with("PATH", "/nonexistent").option("auth=azcli")),
        clinic
            .over_tls(
                Case::new(
                    Finding::NoIdentity,
                    &["environment: ", "workload identity: ", "managed identity: ", "Azure CLI: ", "az login"],
                )
                .with_all(&none)
                .option("auth=default"),
            )
            .stages(denied),
    ] {
        clinic.assert_found(&case);
    }
}

#[test]
fn what_only_entra_id_knows_of_an_application_is_told() {
    let clinic = Clinic::new();
    let _ = application(&clinic);
    clinic.assert_refused(500_011, Finding::AadAudienceUnknown, &["AADSTS500011", "token-audience"]);
    clinic.assert_refused(53_003, Finding::AadConditionalAccess, &["AADSTS53003", "Conditional Access"]);
    let certificate = ClientCertificate::generate("reader").unwrap();
    let file = clinic.world.path("certificate.pem");
    std::fs::write(&file, certificate.pem()).unwrap();
    let case = Case::new(Finding::AadCertificateUnknown, &["AADSTS700027", "--cert @certificate.pem"])
        .with_all(&PRINCIPAL[..2])
        .with("AZURE_CLIENT_CERTIFICATE_PATH", file.display().to_string())
        .option("auth=spn");
    clinic.assert_found(&clinic.over_tls(case).stages(Code::PermissionDenied));
    let bin = clinic.world.directory("bin");
    std::fs::write(bin.join("az"), "#!/bin/sh\necho \"ERROR: Please run 'az login' to setup account.\" >&2\nexit 1\n")
        .unwrap();
    std::fs::set_permissions(bin.join("az"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", bin.display());
    let case = Case::new(Finding::CliSignedOut, &["run az login again"]).with("PATH", path).option("auth=azcli");
    clinic.assert_found(&clinic.over_tls(case));
}

#[test]
fn each_mistake_of_a_federated_token_is_told_apart() {
    let clinic = Clinic::new();
    let cluster = clinic.services.cluster(ISSUER).unwrap();
    let strange = clinic.services.cluster("https://oidc.example.com/other").unwrap();
    let application = clinic.services.tenant(TENANT).application(CLIENT);
    let _ = application.federated(ISSUER, &subject_of("apps", "reader"));
    let (usual, hour) = ("api://AzureADTokenExchange", time::Duration::hours(1));
    let create = "az identity federated-credential create";
    let file = clinic.world.path("token");
    let shown = file.display().to_string();
    for (token, finding, says) in [
        (
            cluster.token("apps", "stranger", usual, hour),
            Finding::FederationMismatch,
            vec![
                create,
                "--subject system:serviceaccount:apps:stranger",
                "--issuer https://oidc.example.com/cluster",
                "--audiences api://AzureADTokenExchange",
            ],
        ),
        (
            strange.token("apps", "reader", usual, hour),
            Finding::FederationMismatch,
            vec!["--issuer https://oidc.example.com/other"],
        ),
        (
            cluster.token("apps", "reader", "https://kubernetes.default.svc", hour),
            Finding::FederationMismatch,
            vec!["audience https://kubernetes.default.svc", "tokenRequests"],
        ),
        (
            cluster.token("apps", "Reader", usual, hour),
            Finding::FederationMismatch,
            vec!["--subject system:serviceaccount:apps:Reader"],
        ),
        (cluster.token("apps", "reader", usual, -hour), Finding::FederatedTokenTime, vec!["AADSTS700024", "clock"]),
        (String::new(), Finding::TokenFileEmpty, vec!["serviceAccountToken"]),
    ] {
        std::fs::write(&file, token).unwrap();
        let case = Case::new(finding, &says)
            .with_all(&PRINCIPAL[..2])
            .with("AZURE_FEDERATED_TOKEN_FILE", shown.clone())
            .option("auth=workload_identity");
        clinic.assert_found(&clinic.over_tls(case).stages(Code::PermissionDenied));
    }
    let label = "azure.workload.identity/use: \"true\"";
    let annotation = "azure.workload.identity/client-id";
    let case = Case::new(Finding::TokenFileUnreadable, &["/no/such/token", label, annotation])
        .with_all(&PRINCIPAL[..2])
        .with("AZURE_FEDERATED_TOKEN_FILE", "/no/such/token")
        .option("auth=workload_identity");
    clinic.assert_found(&clinic.over_tls(case).stages(Code::PermissionDenied));
    // A ServiceAccount without its annotation: the webhook sets no client id.
    let case = Case::new(Finding::AuthIncomplete, &["AZURE_CLIENT_ID", annotation])
        .with("AZURE_TENANT_ID", TENANT)
        .with("AZURE_FEDERATED_TOKEN_FILE", shown)
        .option("auth=workload_identity");
    clinic.assert_found(&clinic.over_tls(case).stages(Code::InvalidArgument));
}

#[test]
fn each_mistake_of_a_managed_identity_is_told_apart() {
    let clinic = Clinic::new();
    let machine = clinic.services.tenant(TENANT).machine();
    let imds = clinic.services.imds_url();
    let case = |finding, says: &[&str], options: &str| {
        let case = Case::new(finding, says).with("AZURE_POD_IDENTITY_AUTHORITY_HOST", imds.clone()).option(options);
        clinic.over_tls(case).stages(Code::PermissionDenied)
    };
    clinic.assert_found(&case(Finding::IdentityNotAssigned, &["az vmss identity assign"], "auth=msi"));
    let _one = machine.user_assigned("44444444-4444-4444-4444-444444444444");
    let _two = machine.user_assigned("55555555-5555-5555-5555-555555555555");
    clinic.assert_found(&case(Finding::IdentityAmbiguous, &["name one"], "auth=msi"));
    clinic.assert_found(&case(Finding::IdentityOther, &["--identities"], "auth=msi,client-id=nobody"));
    let nowhere = "http://127.0.0.1:9";
    clinic.assert_found(
        &case(Finding::IdentityServiceSilent, &["169.254.169.254"], "auth=msi")
            .with("AZURE_POD_IDENTITY_AUTHORITY_HOST", nowhere)
            .stages(Code::Unavailable),
    );
    clinic.assert_found(
        &case(Finding::IdentityNamedTwice, &["client ID, object ID"], "auth=msi,client-id=a,object-id=b")
            .stages(Code::InvalidArgument),
    );
    clinic.assert_found(
        &case(Finding::IdentityEndpointMalformed, &["MSI_ENDPOINT", "http://HOST"], "auth=msi")
            .with("MSI_ENDPOINT", "not a url")
            .stages(Code::InvalidArgument),
    );
    clinic.assert_found(
        &case(Finding::IdentityNotSelectable, &["client id alone"], "auth=msi,object-id=o1")
            .with("MSI_ENDPOINT", nowhere)
            .with("MSI_SECRET", "s")
            .stages(Code::InvalidArgument),
    );
}
