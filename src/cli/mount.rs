//! `azblob-csi mount`: one container, one mount point, in the foreground.
//!
//! Prints `ready` on stdout once the mount answers. SIGTERM and SIGINT save everything, unmount and end the process; so
//! does umount(8) from elsewhere. Knows nothing of CSI; what is mounted and how is decided by flags, options and
//! environment here, everything else below.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

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
    fs::{FileSystem, Resources, ViewSettings},
    fuse::{self, Connected, Session, SessionOptions},
    telemetry::{
        chain,
        endpoint::{Endpoint, Subject},
        metrics::{Labels, Page, table},
    },
    volume::{
        Estate,
        estate::{Found, detach_dead},
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

/// For a process that is about to leave the mount.
const CLAIM_PATIENCE: Duration = Duration::from_secs(10);
/// How long what is under way may hold up the next process.
const LEAVE_PATIENCE: Duration = Duration::from_secs(2);

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
    /// The socket of `azblob-csi keeper`. The mount then outlives this process: started again with the same mount point after
    /// it was killed, or told to leave by SIGUSR1, it goes on with the mount, and programs notice a pause at most.
    #[arg(long, value_name = "PATH")]
    keeper: Option<PathBuf>,
    /// With --keeper: do not ask the kernel (Linux 6.9 and later) to send again what was under way when a process ended; such
    /// calls then fail. For tests of older kernels' behaviour.
    #[arg(long, hide = true, requires = "keeper")]
    no_resend: bool,
    #[command(flatten)]
    volume: VolumeArgs,
}

/// What of the command line says how the mount is made.
struct Wanted {
    place: Place,
    connections: Connections,
    options: MountOptions,
    mount_point: PathBuf,
    keeper: Option<PathBuf>,
    no_resend: bool,
}

/// Mounts, serves until told to end, unmounts.
///
/// # Errors
/// [`Failure`], without a mount left behind.
pub fn run(args: Args) -> Result<(), Failure> {
    let Args { container_url, mount_point, metrics, keeper, no_resend, volume: args } = args;
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
        let wanted = Wanted { place, connections, options, mount_point, keeper, no_resend };
        let served = serve(wanted, Arc::new(resources), metrics.as_deref()).await;
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

async fn serve(wanted: Wanted, resources: Arc<Resources>, metrics_address: Option<&str>) -> Result<(), Failure> {
    // Signals from here on are handled: one that comes while we mount ends us in order as well.
    let mut stop = Stop::listen()?;
    let source = wanted.place.location.to_string();
    let estate = match &wanted.keeper {
        Some(keeper) => Some(claim(keeper, &wanted.mount_point).await?),
        None => None,
    };
    let (estate, found) = estate.unzip();
    let endpoint = match metrics_address {
        Some(address) => Some(Endpoint::bind(address).await.map_err(|error| {
            Failure::new(format!("cannot serve metrics on {address:?}, give another address: {error}"))
        })?),
        None => None,
    };
    let (volume, mounted) = tokio::select! {
        mounted = mount(wanted, resources, estate.as_ref().zip(found)) => mounted?,
        () = stop.asked() => return Ok(()),
    };
    tracing::info!(source, mount = %mounted.mount_point().display(), "serving");
    let mounted = Arc::new(mounted);
    let (labels, session) = (Labels::default().with("volume", source), Arc::clone(&mounted));
    let _telling = endpoint.map(|bound| bound.serve(Mounted { labels, volume: Arc::clone(&volume), session }));
    announce_ready();
    let mut leave = listen(SignalKind::user_defined1())?;
    let told = tokio::select! {
        () = stop.asked() => true,
        () = mounted.ended() => false,
        () = asked_to_leave(&mut leave), if estate.is_some() => {
            tracing::info!("told to leave: the mount is the next process's");
            mounted.hand_over(LEAVE_PATIENCE).await;
            // At once: a reply that is dropped unanswered would be an I/O error to somebody.
            std::process::exit(0);
        }
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
            if let Some(estate) = estate {
                estate.end();
            }
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

/// Claims what the keeper has of a mount. The mount point itself is not looked at: a stat(2) there could wait for us.
async fn claim(keeper: &Path, mount_point: &Path) -> Result<(Estate, Found), Failure> {
    let group = format!("mount {}", place_of(mount_point)?.display());
    let keeper = keeper.to_owned();
    let claimed = tokio::task::spawn_blocking(move || Estate::claim(&keeper, &group, CLAIM_PATIENCE)).await;
    let claimed = claimed.map_err(|error| Failure::new(format!("cannot ask the keeper: {error}")))?;
    claimed.map_err(|error| Failure::from_chain(&error))
}

/// The mount point as the kernel names it, found out by its parent alone.
fn place_of(mount_point: &Path) -> Result<PathBuf, Failure> {
    let failed = |error| Failure::new(format!("cannot mount on {}: {error}", mount_point.display()));
    let full = std::path::absolute(mount_point).map_err(failed)?;
    match (full.parent(), full.file_name()) {
        (Some(parent), Some(name)) => Ok(parent.canonicalize().map_err(failed)?.join(name)),
        _ => Ok(full),
    }
}

async fn mount(
    wanted: Wanted,
    resources: Arc<Resources>,
    estate: Option<(&Estate, Found)>,
) -> Result<(Arc<FileSystem>, Session), Failure> {
    let Wanted { place, connections, options, mount_point, no_resend, .. } = wanted;
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
    let store = AzureStore::with_connections(place.location, slot, settings.limits, &connections);
    // Whoever waits in a mount that is taken over is better off with one that cannot reach the service than with none.
    let is_left = estate.as_ref().is_some_and(|(_, found)| !found.connections.is_empty());
    let checked = match is_left {
        true => Ok(()),
        false => check(&store.with_limits(RequestLimits::mounting()), &settings.prefix, options.create_container).await,
    };
    if let Err(error) = checked {
        let message = format!("cannot mount {source}: {}", Failure::from_chain(&error).message);
        let known = doctor::diagnose(&error, &location, &credential);
        return Err(Failure::known(message, doctor::seen_from_here(known, &location).await));
    }
    let (estate, kept, left) = match estate {
        Some((estate, found)) => (Some(estate), Some(found.kept), found.connections),
        None => (None, None, Vec::new()),
    };
    let store = Arc::new(store);
    let opened = match kept {
        Some(kept) => FileSystem::open_kept(store, resources, settings, kept).await,
        None => FileSystem::open(store, resources, settings).await,
    };
    let file_system = opened.map_err(|error| {
        let message = format!("cannot mount {source}: {}", error.to_chain());
        match &error.source {
            Some(below) => Failure::known(message, doctor::diagnose(below, &location, &credential)),
            None => Failure::new(message),
        }
    })?;
    let session_options =
        SessionOptions { no_resend, teller: estate.map(Estate::teller), ..options.session_options(source.clone()) };
    let (fs, view) = (Arc::clone(&file_system), options.view_settings());
    let session = match estate {
        Some(estate) => mount_kept((fs, view), &mount_point, session_options, (estate, left)).await,
        None => Session::mount(fs, view, &mount_point, session_options).await,
    };
    Ok((file_system, session.map_err(|error| Failure::from_chain(&error))?))
}

/// Goes on with the mount that was left, or makes one that the next process can go on with.
async fn mount_kept(
    (fs, view): (Arc<FileSystem>, ViewSettings),
    mount_point: &Path,
    options: SessionOptions,
    (estate, left): (&Estate, Vec<Connected>),
) -> Result<Session, fuse::Error> {
    let mut taken = None;
    for connected in left {
        let number = connected.view;
        if taken.is_some() {
            estate.forget_mount(number);
            continue;
        }
        match Session::take_over(Arc::clone(&fs), view.clone(), options.clone(), connected).await {
            Ok(session) => taken = Some(session),
            Err(error) => {
                tracing::error!("mounted anew, and what programs have open is lost: {}", chain(&error));
                estate.forget_mount(number);
            }
        }
    }
    let session = match taken {
        Some(session) => session,
        None => {
            let dead = place_of(mount_point).map_or(Ok(false), |place| detach_dead(&place));
            if let Err(error) = dead {
                tracing::warn!(mount = %mount_point.display(), %error, "cannot detach what an earlier process has left");
            }
            Session::mount_kept(Arc::clone(&fs), view, mount_point, options, estate.keep_mount()).await?
        }
    };
    fs.end_takeover().await;
    Ok(session)
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
pub(super) fn announce_ready() {
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

fn listen(kind: SignalKind) -> Result<tokio::signal::unix::Signal, Failure> {
    signal(kind).map_err(|error| Failure::new(format!("cannot listen to signals: {error}")))
}

/// Waits to be told (SIGUSR1) to leave the mount to the next process. Cancel-safe.
async fn asked_to_leave(leave: &mut tokio::signal::unix::Signal) {
    leave.recv().await;
}
