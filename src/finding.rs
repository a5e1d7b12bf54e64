//! Every known reason why a volume does not mount, each with cause, fix, and the test that provokes it: one table.
//!
//! Whoever meets a failure takes its sentence from here, so that the command line, the gRPC error, the event, the doctor and
//! docs/TROUBLESHOOTING.md say the same. Knows nothing of errors: those know which finding they are. No secret may be filled in.

mod table;

use std::fmt;

pub use table::TABLE;

/// Declares enums whose members have a name in reports.
macro_rules! named {
    ($(#[$of:meta])* $enum:ident { $($(#[$doc:meta])* $member:ident $name:literal,)* }) => {
        $(#[$of])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $enum { $($(#[$doc])* $member,)* }

        impl $enum {
            /// Every one, in order.
            pub const ALL: &'static [Self] = &[$(Self::$member,)*];

            /// Its name in reports, which stays.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$member => $name,)* }
            }
        }
    };
}

named! {
    /// A question that the doctor asks; the order is that of the asking.
    Check {
        /// URL and names are legal, and name one place.
        Location "location",
        /// The host's name has addresses.
        Dns "dns",
        /// Somebody listens there.
        Tcp "tcp",
        /// The certificate is good.
        Tls "tls",
        /// A Blob service answers, in a version that we speak.
        Http "http",
        /// This machine's clock is the service's.
        Clock "clock",
        /// The account exists, is in order, and its kind can be told.
        Account "account",
        /// The account's network rules let us in.
        Firewall "firewall",
        /// The credential is what it is called.
        Credential "credential",
        /// The account takes this key or SAS.
        Key "key",
        /// The container may be read by everybody, where we are nobody.
        PublicAccess "public-access",
        /// The account takes keys.
        SharedKey "shared-key",
        /// The identity has its role.
        Role "role",
        /// A pod's token is exchanged.
        WorkloadIdentity "workload-identity",
        /// An application signs in to Entra ID.
        ServicePrincipal "service-principal",
        /// The platform gives a token.
        ManagedIdentity "managed-identity",
        /// Some token is there at all.
        Token "token",
        /// The container is there.
        Container "container",
        /// Names can be listed.
        List "list",
        /// Contents can be read.
        Read "read",
        /// Blobs can be made.
        Write "write",
        /// Blobs can be removed.
        Delete "delete",
        /// Pages of an origin may ask the account.
        Cors "cors",
        /// The kernel can mount FUSE.
        Kernel "kernel",
        /// There is room for the cache.
        CacheDirectory "cache-directory",
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Which.
    pub finding: Finding,
    /// Who finds it.
    pub check: Check,
    /// What the service, a log or a program shows, as people search for it.
    pub symptom: &'static str,
    /// What is wrong. `{name}` stands for a fact, `{name?}` for one that may be missing.
    pub cause: &'static str,
    /// What to do about it.
    pub fix: &'static str,
    /// The test that provokes it, `file::function`.
    pub test: &'static str,
}

/// A finding with its facts: one sentence with the fix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    /// Which.
    pub finding: Finding,
    /// What is wrong.
    pub cause: String,
    /// What to do about it.
    pub fix: String,
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.cause, self.fix)
    }
}

impl Finding {
    /// Its row.
    #[must_use]
    pub fn row(self) -> &'static Row {
        // A test holds that every finding has its row; the first stands in for the compiler.
        TABLE.iter().find(|row| row.finding == self).unwrap_or(&TABLE[0])
    }

    /// The finding with these facts in place of `{name}`. A fact that is not given stands in capitals: SUBSCRIPTION; in place
    /// of `{name?}` nothing.
    #[must_use]
    pub fn with(self, facts: &[(&str, &str)]) -> Diagnosis {
        let row = self.row();
        Diagnosis { finding: self, cause: filled(row.cause, facts), fix: filled(row.fix, facts) }
    }
}

/// What a failed TLS handshake is about, by the words of the TLS library (rustls, `CertificateError`).
#[must_use]
pub fn of_tls(said: &str) -> Finding {
    let said = said.to_ascii_lowercase();
    let any = |words: &[&str]| words.iter().any(|word| said.contains(word));
    if any(&["unknownissuer", "unknown issuer", "badsignature"]) {
        Finding::TlsAuthority
    } else if any(&["notvalidforname", "not valid for name", "not valid for any name"]) {
        Finding::TlsName
    } else if any(&["expired", "notvalidyet", "not valid yet"]) {
        Finding::TlsTime
    } else {
        Finding::TlsFailed
    }
}

/// One pass: braces in a fact are text.
fn filled(template: &str, facts: &[(&str, &str)]) -> String {
    let mut text = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, behind)) = rest.split_once('{') {
        let Some((name, after)) = behind.split_once('}') else { break };
        text.push_str(before);
        let (plain, optional) = name.strip_suffix('?').map_or((name, false), |plain| (plain, true));
        match facts.iter().find(|(fact, _)| *fact == plain) {
            Some((_, value)) => text.push_str(value),
            None if optional => {}
            None => text.push_str(&plain.to_uppercase()),
        }
        rest = after;
    }
    text.push_str(rest);
    text
}

/// The table as docs/TROUBLESHOOTING.md has it.
#[must_use]
pub fn markdown() -> String {
    let cell = |text: &str| filled(text, &[]).replace('|', "\\|");
    let mut text = String::new();
    for check in Check::ALL {
        let rows: Vec<&Row> = TABLE.iter().filter(|row| row.check == *check).collect();
        if rows.is_empty() {
            continue;
        }
        text.push_str(&format!("### {}\n\n", check.name()));
        text.push_str("| finding | what shows | cause | fix | test |\n|---|---|---|---|---|\n");
        for row in rows {
            let Row { finding, symptom, cause, fix, test, .. } = row;
            text.push_str(&format!(
                "| `{}` | {} | {} | {} | `{test}` |\n",
                finding.name(),
                cell(symptom),
                cell(cause),
                cell(fix)
            ));
        }
        text.push('\n');
    }
    text
}

named! {
    /// A reason. The name is what scripts match on.
    Finding {
        /// No URL of a container.
        UrlMalformed "url-malformed",
        /// No container is named.
        ContainerUnnamed "container-unnamed",
        /// A name that no container has.
        ContainerNameIllegal "container-name-illegal",
        /// A name that no account has.
        AccountNameIllegal "account-name-illegal",
        /// Neither account nor endpoint.
        AccountUnnamed "account-unnamed",
        /// Two different accounts.
        AccountNamedTwice "account-named-twice",
        /// A cloud that nobody knows.
        CloudUnknown "cloud-unknown",
        /// A secret of nothing.
        SecretEmpty "secret-empty",
        /// A file with a secret that cannot be read.
        SecretFileUnreadable "secret-file-unreadable",
        /// No Secret, or nothing of use in it.
        SecretMissing "secret-missing",
        /// A Secret with a key and without its account.
        SecretWithoutAccount "secret-without-account",
        /// A Secret that says two things.
        SecretContradicts "secret-contradicts",
        /// A key that is no base64.
        KeyNotBase64 "key-not-base64",
        /// A key of an unusual length.
        KeyLength "key-length",
        /// A key without its account.
        KeyWithoutAccount "key-without-account",
        /// A key of another account than the URL's.
        KeyOfOtherAccount "key-of-other-account",
        /// A SAS without its signature.
        SasUnsigned "sas-unsigned",
        /// A SAS whose time is over.
        SasExpired "sas-expired",
        /// A SAS whose time is over soon.
        SasEnds "sas-ends",
        /// A SAS whose time has not come.
        SasNotYetValid "sas-not-yet-valid",
        /// A SAS of other services.
        SasOtherService "sas-other-service",
        /// A SAS without containers or blobs.
        SasResourceTypes "sas-resource-types",
        /// A SAS for one blob.
        SasSingleBlob "sas-single-blob",
        /// A SAS that says itself that it cannot read or list.
        SasPermissions "sas-permissions",
        /// A SAS for other addresses.
        SasAddress "sas-address",
        /// A SAS for https on http.
        SasProtocol "sas-protocol",
        /// No connection string.
        ConnectionStringMalformed "connection-string-malformed",
        /// A connection string without an account.
        ConnectionStringWithoutAccount "connection-string-without-account",
        /// A way to sign in that cannot be taken.
        AuthMode "auth-mode",
        /// A way to sign in that lacks something.
        AuthIncomplete "auth-incomplete",
        /// No host of Entra ID.
        AuthorityMalformed "authority-malformed",
        /// No tenant.
        TenantMalformed "tenant-malformed",
        /// Two names for one managed identity.
        IdentityNamedTwice "identity-named-twice",
        /// A managed identity that cannot be chosen here.
        IdentityNotSelectable "identity-not-selectable",
        /// No URL of an identity service.
        IdentityEndpointMalformed "identity-endpoint-malformed",
        /// A bundle of certificates that cannot be used.
        CaFile "ca-file",
        /// No certificate authorities at all.
        NoCaCertificates "no-ca-certificates",
        /// No /dev/fuse.
        NoFuseDevice "no-fuse-device",
        /// No right to mount.
        MountNotPermitted "mount-not-permitted",
        /// Few file descriptors.
        FileLimit "file-limit",
        /// A cache directory that cannot be used.
        CacheDirectoryUnusable "cache-directory-unusable",
        /// A cache directory without room.
        CacheDirectoryFull "cache-directory-full",
        /// A name without an address.
        NameUnknown "name-unknown",
        /// A port without a listener.
        NobodyListens "nobody-listens",
        /// An address that swallows packets.
        Unreachable "unreachable",
        /// The same for the endpoint that only hierarchical accounts need.
        DfsUnreachable "dfs-unreachable",
        /// A proxy that cannot be used.
        ProxyUnreachable "proxy-unreachable",
        /// A certificate of an unknown authority.
        TlsAuthority "tls-authority",
        /// A certificate for another name.
        TlsName "tls-name",
        /// A certificate whose time is not now.
        TlsTime "tls-time",
        /// No TLS for another reason.
        TlsFailed "tls-failed",
        /// Something else than a Blob service.
        NotABlobService "not-a-blob-service",
        /// A service that is too old.
        ServiceTooOld "service-too-old",
        /// http where https is needed.
        HttpsRequired "https-required",
        /// Characters that HTTP refuses.
        HeaderMalformed "header-malformed",
        /// A clock that is off.
        ClockSkew "clock-skew",
        /// Not this application in this tenant.
        AadApplicationUnknown "aad-application-unknown",
        /// A wrong client secret.
        AadSecretWrong "aad-secret-wrong",
        /// A client secret whose time is over.
        AadSecretExpired "aad-secret-expired",
        /// A tenant that is not there.
        AadTenantUnknown "aad-tenant-unknown",
        /// A certificate that is not registered.
        AadCertificateUnknown "aad-certificate-unknown",
        /// Storage is unknown to the tenant.
        AadAudienceUnknown "aad-audience-unknown",
        /// A policy forbids it.
        AadConditionalAccess "aad-conditional-access",
        /// A file with a certificate that cannot be used.
        CertificateFile "certificate-file",
        /// A token file that cannot be read.
        TokenFileUnreadable "token-file-unreadable",
        /// A token file without a token.
        TokenFileEmpty "token-file-empty",
        /// A volume whose mount has gone with an earlier process, and whose Secret cannot be had.
        StageLost "stage-lost",
        /// A volume that needs the token of its pod, and none came.
        PodTokenMissing "pod-token-missing",
        /// A pod's token that is none.
        PodTokenMalformed "pod-token-malformed",
        /// No federated credential fits.
        FederationMismatch "federation-mismatch",
        /// There is none at all, or the token cannot be read.
        FederationMissing "federation-missing",
        /// A federated token whose time is not now.
        FederatedTokenTime "federated-token-time",
        /// No identity service.
        IdentityServiceSilent "identity-service-silent",
        /// No identity on the machine.
        IdentityNotAssigned "identity-not-assigned",
        /// Not this identity on the machine.
        IdentityOther "identity-other",
        /// Several, and none named.
        IdentityAmbiguous "identity-ambiguous",
        /// No CLI.
        CliMissing "cli-missing",
        /// Nobody signed in with the CLI.
        CliSignedOut "cli-signed-out",
        /// None of the default chain.
        NoIdentity "no-identity",
        /// Entra ID cannot be reached.
        AuthorityUnreachable "authority-unreachable",
        /// No cloud config.
        CloudConfigUnfit "cloud-config-unfit",
        /// Nobody to ask in the name of.
        ClusterIdentityMissing "cluster-identity-missing",
        /// An account whose place in Azure is not known.
        AccountUnplaced "account-unplaced",
        /// No URL of a key vault.
        VaultUrlMalformed "vault-url-malformed",
        /// No such secret.
        VaultSecretMissing "vault-secret-missing",
        /// A secret that was switched off.
        VaultSecretDisabled "vault-secret-disabled",
        /// A secret of another kind.
        VaultSecretUnfit "vault-secret-unfit",
        /// No role at the vault.
        VaultForbidden "vault-forbidden",
        /// Network rules of the vault.
        VaultFirewall "vault-firewall",
        /// No role to list keys.
        KeysForbidden "keys-forbidden",
        /// A lock on the account.
        KeysLocked "keys-locked",
        /// An account that is elsewhere.
        AccountNotInGroup "account-not-in-group",
        /// No role to find and make accounts.
        AccountsForbidden "accounts-forbidden",
        /// A policy against the account that would be made.
        AccountAgainstPolicy "account-against-policy",
        /// As many accounts as a subscription may have.
        AccountsTooMany "accounts-too-many",
        /// A resource group that is not there.
        GroupMissing "group-missing",
        /// Something else that such a service says.
        LookupRefused "lookup-refused",
        /// A token on http.
        TokenOverHttp "token-over-http",
        /// A token for another tenant or cloud.
        TokenOtherTenant "token-other-tenant",
        /// No token for a reason that only the source knows.
        TokenRefused "token-refused",
        /// Network rules.
        Firewall "firewall",
        /// An account out of order.
        AccountDisabled "account-disabled",
        /// Keys are not allowed.
        SharedKeyDisabled "shared-key-disabled",
        /// A key that is not (or no longer) the account's.
        KeyRefused "key-refused",
        /// A key or SAS that is not the account's: who says so does not know which.
        SignatureRefused "signature-refused",
        /// A SAS whose signature is not the account's.
        SasRefused "sas-refused",
        /// No credential for a private container.
        NotPublic "not-public",
        /// No permission: who says so does not know whether a SAS or a role lacks it.
        PermissionMissing "permission-missing",
        /// No role.
        RoleMissing "role-missing",
        /// No role for modes and lists of access.
        RoleOwnerMissing "role-owner-missing",
        /// Refused, without a code that says why.
        Denied "denied",
        /// No such container.
        ContainerMissing "container-missing",
        /// A container on its way out.
        ContainerBeingDeleted "container-being-deleted",
        /// No read permission.
        ReadDenied "read-denied",
        /// No write permission.
        WriteDenied "write-denied",
        /// No delete permission.
        DeleteDenied "delete-denied",
        /// Too much to do.
        Throttled "throttled",
        /// Two writers of one blob.
        Conflict "conflict",
        /// Commits fail.
        NotSaved "not-saved",
        /// A volume has ended with data that is in lost+found.
        LeftUnsaved "left-unsaved",
        /// No room in the volume.
        QuotaReached "quota-reached",
        /// An archived blob.
        Archived "archived",
        /// A lease or policy.
        Blocked "blocked",
        /// An answer that says nothing.
        RequestRefused "request-refused",
        /// No rule for the origin.
        CorsMissing "cors-missing",
        /// The rules cannot be looked at.
        CorsUnknown "cors-unknown",
    }
}

#[cfg(test)]
mod tests;
