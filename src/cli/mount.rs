//! `azblob-csi mount`: one container, one mount point, in the foreground.
//!
//! Prints `ready` on stdout once the mount answers. SIGTERM and SIGINT save everything, unmount and end the process; so
//! does umount(8) from elsewhere. Knows nothing of CSI; what is mounted and how is decided by flags, options and
//! environment here, everything else below.

use std::{io::Write as _, path::PathBuf, sync::Arc, time::Duration};

use tokio::signal::unix::{SignalKind, signal};

use super::{
    Failure, disk,
    place::{Place, Said},
    volume_args::VolumeArgs,
};
use crate::{
    blob::{
        self, AzureStore, BlobStore as _, Connections, ErrorKind, ListRequest, Metadata, REQUESTS_IN_FLIGHT_DEFAULT,
        RequestLimits,
    },
    cache::Volumes,
    credential::{self, CredentialSlot},
    doctor,
    fs::{FileSystem, Resources},
    fuse::Session,
    telemetry::{
        endpoint::{Endpoint, Subject},
        metrics::{Labels, Page, table},
    },
    volume::{
        metrics,
        options::{MountOptions, options_help},
    },
};

const EXAMPLES: &str = "\
Examples:
  AZURE_STORAGE_KEY=... azblob-csi mount https://acme.blob.core.windows.net/logs /mnt/logs
  AZURE_STORAGE_SAS_TOKEN='sv=...' azblob-csi mount --account acme -o ro logs/2026 /mnt/logs
  AZURE_STORAGE_CONNECTION_STRING=UseDevelopmentStorage=true azblob-csi mount --create-container demo /mnt/demo
  azblob-csi mount -o auth=msi https://acme.blob.core.windows.net/logs /mnt/logs
  azblob-csi mount -o auth=azcli https://acme.blob.core.windows.net/logs /mnt/logs

Credentials come from the environment, the first that is set: AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_KEY,
AZURE_STORAGE_ACCESS_KEY, AZURE_STORAGE_SAS_TOKEN; a service principal (AZURE_CLIENT_ID, AZURE_TENANT_ID and
AZURE_CLIENT_SECRET or AZURE_CLIENT_CERTIFICATE_PATH); workload identity (AZURE_CLIENT_ID, AZURE_TENANT_ID and
AZURE_FEDERATED_TOKEN_FILE); a managed identity that is named; none means a public container. -o auth=WAY picks one. A
SAS in the URL works too, but other users of this machine can see it. AZURE_STORAGE_KEY2 is the account's other key, tried
where the first is refused. A secret may be in a file, which AZURE_STORAGE_KEY_FILE, AZURE_STORAGE_SAS_TOKEN_FILE, ...
names: a file that changes is read again, without a remount.
";

/// Mount a container in the foreground, until SIGTERM, SIGINT or umount.
#[derive(Debug, clap::Args)]
#[command(allow_missing_positional = true, after_long_help = format!("{EXAMPLES}\n{}", options_help()))]
pub struct Args {
    /// https://ACCOUNT.blob.core.windows.net/CONTAINER[/PREFIX], http://HOST:PORT/ACCOUNT/CONTAINER[/PREFIX], or
    /// CONTAINER[/PREFIX] with the account from --account or the environment. Without it: AZURE_STORAGE_CONTAINER.
    container_url: Option<String>,
    /// An existing directory.
    mount_point: PathBuf,
    /// Serves metrics for Prometheus there, at /metrics: HOST:PORT, or :PORT for all addresses [default: nowhere].
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<String>,
    #[command(flatten)]
    volume: VolumeArgs,
}

/// Mounts, serves until told to end, unmounts.
///
/// # Errors
/// [`Failure`], without a mount left behind.
pub fn run(args: Args) -> Result<(), Failure> {
    let Args { container_url, mount_point, metrics, volume: args } = args;
    let options = args.mount_options()?;
    let trust = args.trust.read()?;
    let said = Said { url: container_url.as_deref(), account: args.account.as_deref() };
    let place = Place::find(said, &options, &trust).map_err(Failure::from)?;
    place.announce();
    let connections = Connections::trusting(REQUESTS_IN_FLIGHT_DEFAULT, &trust);
    let connections = connections.map_err(|error| Failure { remedy: error.remedy(), ..Failure::from_chain(&error) })?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot start threads: {error}")))?;
    let resources = args.resources.resources(Volumes::One, runtime.handle());
    let cache = resources.cache.clone();
    let served = runtime.block_on(async {
        let served = serve((place, connections, options, mount_point), Arc::new(resources), metrics.as_deref()).await;
        disk::flush(&cache).await;
        served
    });
    // What still runs in the background (a prefetch, a retry) is of no use to anybody now.
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

/// What is numbered here: the only volume.
struct Mounted {
    labels: Labels,
    volume: Arc<FileSystem>,
    session: Arc<Session>,
}

impl Subject for Mounted {
    fn write(&self, page: &mut Page) {
        page.count(&table::VOLUMES, &Labels::default(), 1);
        metrics::write_shared(page, &self.volume.resources().cache);
        metrics::write_volume(page, &self.labels, &self.volume, usize::from(self.session.is_serving()), None);
    }
}

async fn serve(
    (place, connections, options, mount_point): (Place, Connections, MountOptions, PathBuf),
    resources: Arc<Resources>,
    metrics_address: Option<&str>,
) -> Result<(), Failure> {
    // Signals from here on are handled: one that comes while we mount ends us in order as well.
    let mut stop = Stop::listen()?;
    let source = place.location.to_string();
    let endpoint = match metrics_address {
        Some(address) => Some(Endpoint::bind(address).await.map_err(|error| {
            Failure::new(format!("cannot serve metrics on {address:?}, give another address: {error}"))
        })?),
        None => None,
    };
    let (volume, mounted) = tokio::select! {
        mounted = mount(place, &connections, &options, mount_point, resources) => mounted?,
        () = stop.asked() => return Ok(()),
    };
    tracing::info!(source, mount = %mounted.mount_point().display(), "serving");
    let mounted = Arc::new(mounted);
    let (labels, session) = (Labels::default().with("volume", source), Arc::clone(&mounted));
    let _telling = endpoint.map(|bound| bound.serve(Mounted { labels, volume: Arc::clone(&volume), session }));
    announce_ready();
    let told = tokio::select! {
        () = stop.asked() => true,
        () = mounted.ended() => false,
    };
    tracing::info!("{}: saving", if told { "told to end" } else { "unmounted from outside" });
    // Whoever unmounts and then tells the process to end, as service managers do, has told it once.
    let told_again = async {
        if !told {
            stop.asked().await;
        }
        stop.asked().await;
    };
    tokio::select! {
        unmounted = mounted.unmount() => {
            // What even the unmounting left behind: the process ends now.
            volume.set_aside_all().await;
            unmounted.map_err(|error| Failure::from_chain(&error))
        }
        () = told_again => {
            let left = volume.set_aside_all().await;
            Err(Failure::new(format!(
                "told to end again while saving: {} files are in lost+found of the spool directory, {} are lost",
                left.files, left.kept
            )))
        }
    }
}

async fn mount(
    place: Place,
    connections: &Connections,
    options: &MountOptions,
    mount_point: PathBuf,
    resources: Arc<Resources>,
) -> Result<(Arc<FileSystem>, Session), Failure> {
    let source = place.location.to_string();
    let (location, credential) = (place.location.clone(), place.credential.clone());
    let mut settings = options.settings();
    settings.prefix = format!("{}{}", place.location.prefix(), settings.prefix);
    settings.scope = place.scope();
    let slot = match place.files {
        Some(files) => CredentialSlot::with_source(place.credential, Arc::new(files)),
        None => CredentialSlot::new(place.credential),
    };
    // Both end with the volume.
    drop(tokio::spawn(credential::watch(Arc::downgrade(&slot))));
    drop(tokio::spawn(credential::watch_expiry(Arc::downgrade(&slot), async |known| tracing::warn!("{known}"))));
    let store = AzureStore::with_connections(place.location, slot, settings.limits, connections);
    let checked =
        check(&store.with_limits(RequestLimits::mounting()), &settings.prefix, options.create_container).await;
    if let Err(error) = checked {
        let message = format!("cannot mount {source}: {}", Failure::from_chain(&error).message);
        let known = doctor::diagnose(&error, &location, &credential);
        return Err(Failure::known(message, doctor::seen_from_here(known, &location).await));
    }
    let file_system = FileSystem::open(Arc::new(store), resources, settings).await.map_err(|error| {
        let message = format!("cannot mount {source}: {}", error.to_chain());
        match &error.source {
            Some(below) => Failure::known(message, doctor::diagnose(below, &location, &credential)),
            None => Failure::new(message),
        }
    })?;
    let session_options = options.session_options(source.clone());
    let session = Session::mount(Arc::clone(&file_system), options.view_settings(), &mount_point, session_options);
    Ok((file_system, session.await.map_err(|error| Failure::from_chain(&error))?))
}

/// Asks for one name below the prefix: the least that every credential that can be of use may do. Makes the container
/// when it is missing and we were told to.
async fn check(store: &AzureStore, prefix: &str, create: bool) -> blob::Result<()> {
    let request = ListRequest { prefix: prefix.to_owned(), delimited: true, marker: None, max_results: Some(1) };
    match store.list(&request).await {
        Err(error) if error.kind == ErrorKind::ContainerNotFound && create => {}
        answered => return answered.map(drop),
    }
    match store.create_container(&Metadata::new()).await {
        // Somebody else was faster.
        Err(error) if error.kind == ErrorKind::Precondition => Ok(()),
        created => created,
    }
}

/// Tells whoever started us. A reader that is gone is no reason to end the mount.
fn announce_ready() {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "ready").and_then(|()| out.flush());
}

/// SIGTERM and SIGINT.
struct Stop {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Stop {
    fn listen() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::new(format!("cannot listen to signals: {error}")));
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    /// Waits for the next of them. Cancel-safe.
    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
