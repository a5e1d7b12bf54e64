//! Unix sockets for gRPC: parse an endpoint, replace a stale socket, serve until told to stop.

use std::{
    future::Future,
    io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
};

use tokio::net::{UnixListener, UnixStream};
use tokio_stream::{StreamExt as _, wrappers::UnixListenerStream};
use tonic::transport::server::Router;

use super::{
    error::{Error, ErrorKind, Result},
    registration::LocalAuthority,
};

/// Mode of the sockets: whoever may call can mount as root, so only root may.
const SOCKET_MODE: u32 = 0o600;

/// The path in `unix:///csi/csi.sock`, `unix://tmp/csi.sock`, `unix:/csi.sock` or a plain path.
///
/// # Errors
/// `Invalid` for other schemes and for no path.
pub fn socket_path(endpoint: &str) -> Result<PathBuf> {
    let bad =
        || Error::invalid(format!("endpoint {endpoint:?} is not a Unix socket: expected unix:///path/to/csi.sock"));
    let path = match endpoint.strip_prefix("unix:") {
        Some(rest) => rest.strip_prefix("//").unwrap_or(rest),
        None if endpoint.contains("://") => return Err(bad()),
        None => endpoint,
    };
    if path.is_empty() || path.ends_with('/') {
        return Err(bad());
    }
    Ok(PathBuf::from(path))
}

/// A socket that listens. Its file is removed when it is dropped.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    listener: UnixListener,
}

impl Socket {
    /// Makes the directory, removes a stale socket of an earlier process, and listens.
    ///
    /// # Errors
    /// `Invalid` when another process listens there or the path is something else; `Internal` for what the kernel says.
    pub async fn bind(path: &Path) -> Result<Self> {
        let failed = |what: &str, error: io::Error| {
            Error::new(ErrorKind::Internal, format!("Cannot {what} {}", path.display())).because(error)
        };
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(|error| failed("make the directory of socket", error))?;
        }
        match std::fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(Error::invalid(format!("{} exists and is no socket: remove it", path.display())));
            }
            Ok(_) if UnixStream::connect(path).await.is_ok() => {
                return Err(Error::invalid(format!(
                    "another process already listens at {}: end it first",
                    path.display()
                )));
            }
            Ok(_) => std::fs::remove_file(path).map_err(|error| failed("remove the stale socket", error))?,
            Err(_) => {}
        }
        let listener = UnixListener::bind(path).map_err(|error| failed("listen at", error))?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE))
            .map_err(|error| failed("restrict", error))?;
        Ok(Self { path: path.to_path_buf(), listener })
    }

    /// Serves `router` until `stop` resolves, then ends after the calls in flight.
    ///
    /// # Errors
    /// `Internal` when the transport fails.
    pub async fn serve(self, router: Router, stop: impl Future<Output = ()> + Send) -> Result<()> {
        let Self { path, listener } = self;
        let _file = RemoveOnDrop(path.clone());
        let served = router.serve_with_incoming_shutdown(UnixListenerStream::new(listener), stop).await;
        served.map_err(|error| failed(&path, error))
    }

    /// The same for the kubelet's registration, whose requests need a hand (`registration/authority.rs`).
    ///
    /// # Errors
    /// As [`Self::serve`].
    pub async fn serve_registration(self, router: Router, stop: impl Future<Output = ()> + Send) -> Result<()> {
        let Self { path, listener } = self;
        let _file = RemoveOnDrop(path.clone());
        let incoming = UnixListenerStream::new(listener).map(|stream| stream.map(LocalAuthority::new));
        router.serve_with_incoming_shutdown(incoming, stop).await.map_err(|error| failed(&path, error))
    }
}

fn failed(path: &Path, error: tonic::transport::Error) -> Error {
    Error::new(ErrorKind::Internal, format!("The gRPC server at {} failed", path.display())).because(error)
}

struct RemoveOnDrop(PathBuf);

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_unix_sockets_in_all_usual_spellings() {
        assert_eq!(socket_path("unix:///csi/csi.sock").unwrap(), Path::new("/csi/csi.sock"));
        assert_eq!(socket_path("unix://tmp/csi.sock").unwrap(), Path::new("tmp/csi.sock"));
        assert_eq!(socket_path("unix:/csi.sock").unwrap(), Path::new("/csi.sock"));
        assert_eq!(socket_path("/csi.sock").unwrap(), Path::new("/csi.sock"));
        for bad in ["tcp://0.0.0.0:1", "unix://", "", "/csi/"] {
            assert!(socket_path(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/csi.sock");
        drop(Socket::bind(&path).await.unwrap());
        assert!(path.exists(), "a crash leaves the file");
        let live = Socket::bind(&path).await.unwrap();
        let refused = Socket::bind(&path).await.unwrap_err();
        assert!(refused.message.contains("already listens"), "{refused}");
        drop(live);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "data").unwrap();
        assert!(Socket::bind(&path).await.unwrap_err().message.contains("no socket"));
    }
}
