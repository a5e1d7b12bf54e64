//! Every identity of Entra ID, from the command line to the blob: the real binary, a real mount, and a fake Entra ID and
//! Blob service behind a proxy, over TLS, under Azure's own host names.
//!
//! | file | claim |
//! |---|---|
//! | `sources` | each source signs in and reads, by what it is and when it is picked |
//! | `clouds` | requests go to the host, authority and audience of the right cloud |
//! | `pods` | a volume that a pod signs in to is that pod's alone |
//! | `provision` | accounts are found and made by the cluster's identity, and so is answered what brings no secret |
//! | `rotation` | keys, SAS and tokens are replaced under load |
//! | `watched` | a Secret is read again at the API server, and what ends or goes wrong is an event there |
//! | `lives` | tokens are refreshed ahead of their end, and replaced when they are refused |
//! | `mistakes` | each mistake has a sentence of its own |

// Helpers of tests fail the test by panicking, like the tests themselves.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "identity/clouds.rs"]
mod clouds;
#[path = "identity/lives.rs"]
mod lives;
#[path = "identity/lookups.rs"]
mod lookups;
#[path = "identity/mistakes.rs"]
mod mistakes;
#[path = "identity/node.rs"]
mod node;
#[path = "identity/pods.rs"]
mod pods;
#[path = "identity/provision.rs"]
mod provision;
#[path = "identity/rotation.rs"]
mod rotation;
#[path = "identity/sources.rs"]
mod sources;
#[path = "identity/watched.rs"]
mod watched;

use blob_emulator::{Cloud, Cluster, IdentityRequest, IdentityService, IdentityServices, Role, subject_of};
use harness::{Mount, World};

const TENANT: &str = "11111111-1111-1111-1111-111111111111";
const CLIENT: &str = "22222222-2222-2222-2222-222222222222";
const SECRET: &str = "client~secret~that~nobody~may~see";
const ISSUER: &str = "https://oidc.example.com/cluster";
/// What a file on the volume holds.
const CONTENT: &[u8] = b"read with a token";

/// A world, its identity services, and an application that may do everything.
struct Realm {
    world: World,
    services: IdentityServices,
}

impl Realm {
    fn new() -> Self {
        let world = World::new(env!("CARGO_BIN_EXE_azblob-csi"));
        let services = IdentityServices::start(world.emulator()).unwrap();
        world.emulator().put(world.container(), "file", CONTENT, &[]).unwrap();
        let application = services.tenant(TENANT).application(CLIENT).secret(SECRET);
        services.grant(&application.object_id(), Role::BlobDataContributor);
        Self { world, services }
    }

    /// URL of the container in a cloud.
    fn url_in(&self, cloud: Cloud) -> String {
        format!("https://{}/{}", cloud.blob_host(self.world.emulator().account()), self.world.container())
    }

    fn url(&self) -> String {
        self.url_in(Cloud::Public)
    }

    /// The way to the services, and this on top.
    fn environment<'a>(&self, more: &[(&'a str, &str)]) -> Vec<(&'a str, String)> {
        let way = [
            ("https_proxy", self.services.proxy_url()),
            ("SSL_CERT_FILE", self.services.ca_file().display().to_string()),
        ];
        way.into_iter().chain(more.iter().map(|(name, value)| (*name, (*value).to_owned()))).collect()
    }

    #[track_caller]
    fn mount(&self, args: &[&str], environment: &[(&str, &str)]) -> Mount {
        self.world.mount_as(&self.url(), args, &self.environment(environment))
    }

    /// Mounts, reads, and unmounts; nothing secret may be in the log, at any level.
    #[track_caller]
    fn reads(&self, args: &[&str], environment: &[(&str, &str)]) -> String {
        let args: Vec<&str> = ["--log-level", "trace"].iter().chain(args).copied().collect();
        let mount = self.mount(&args, environment);
        assert_eq!(std::fs::read(mount.path("file")).unwrap(), CONTENT);
        let log = mount.unmount().log;
        self.assert_no_secret(&log);
        log
    }

    /// What a mount that must fail says.
    #[track_caller]
    fn fails(&self, args: &[&str], environment: &[(&str, &str)]) -> String {
        self.fails_at(&self.url(), args, environment)
    }

    #[track_caller]
    fn fails_at(&self, url: &str, args: &[&str], environment: &[(&str, &str)]) -> String {
        let mount_point = self.world.directory("fails");
        let mut all = vec!["mount"];
        all.extend(args);
        all.extend([url, mount_point.to_str().unwrap()]);
        let said = self.world.fails(&mut self.world.command_as(&all, &self.environment(environment)));
        self.assert_no_secret(&said);
        said
    }

    #[track_caller]
    fn assert_no_secret(&self, text: &str) {
        assert!(!text.contains(SECRET), "the client secret stands in: {text}");
        for mark in ["Bearer ey", "eyJ"] {
            assert!(!text.contains(mark), "a token stands in: {text}");
        }
    }

    fn requests(&self, service: IdentityService) -> Vec<IdentityRequest> {
        self.services.requests().into_iter().filter(|request| request.service == service).collect()
    }

    /// A cluster whose service account `apps/reader` is trusted, and a token file of it.
    fn federated(&self) -> (Cluster, String) {
        let cluster = self.services.cluster(ISSUER).unwrap();
        let application = self.services.tenant(TENANT).application(CLIENT);
        let _ = application.federated(ISSUER, &subject_of("apps", "reader"));
        let file = self.world.path("token");
        let hour = time::Duration::hours(1);
        std::fs::write(&file, cluster.token("apps", "reader", "api://AzureADTokenExchange", hour)).unwrap();
        (cluster, file.display().to_string())
    }
}

/// The environment of a service principal with its secret.
const PRINCIPAL: [(&str, &str); 3] =
    [("AZURE_CLIENT_ID", CLIENT), ("AZURE_TENANT_ID", TENANT), ("AZURE_CLIENT_SECRET", SECRET)];
