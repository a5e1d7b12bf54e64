//! CreateVolume: where the new volume is to be, whether it is there already, and what is copied into it.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{Controller, Volume, no_volume, wanted_capacity};
use crate::{
    blob::{BlobStore as _, ListRequest},
    csi::{
        account,
        capability::Access,
        container_name::container_name,
        copy::{Copies, Copy, Outcome},
        error::{Error, ErrorKind, Result},
        marks::Marks,
        named_secret::SECRET_NAMESPACE_DEFAULT,
        parameters::Parameters,
        place::{Found, Place},
        proto::v1::{
            self, CreateVolumeRequest, CreateVolumeResponse, VolumeContentSource,
            volume_content_source::{self, SnapshotSource, VolumeSource},
        },
        request::{Account, require},
        volume_id::VolumeId,
    },
};

/// What the content of a new volume is a copy of.
struct Source {
    handle: String,
    place: Place,
}

/// What CreateVolume has to make, and where.
struct Creation {
    driver: String,
    volume: String,
    place: Place,
    wanted_bytes: u64,
    /// The StorageClass names the container: volumes of any size may share it.
    is_named: bool,
    keeps: bool,
    source: Option<Source>,
    copies: Copies,
    patience: Duration,
}

impl Controller {
    pub(super) async fn create(
        &self,
        request: CreateVolumeRequest,
        patience: Duration,
    ) -> Result<CreateVolumeResponse> {
        require(&[("name", &request.name)])?;
        Access::read_all(&request.volume_capabilities)?;
        let mut wanted_bytes = wanted_capacity(request.capacity_range.as_ref())?;
        let parameters = Parameters::of_storage_class(&request.parameters)?;
        let (container, directory) = target(&parameters, &request.name)?;
        let parameters = account::chosen(&self.defaults, parameters, &request.secrets).await?;
        let account = Account::find(&self.defaults, &parameters, None, &request.secrets).await?;
        account::keep_key(&self.defaults, &parameters, &account).await;
        let place = self.place(&account, &container, directory.as_deref())?;
        let source = match &request.volume_content_source {
            Some(source) => {
                let (source, size) = self.source(source, &account, &request.secrets).await?;
                if wanted_bytes == 0 {
                    wanted_bytes = size;
                }
                if wanted_bytes < size {
                    let text = format!("{wanted_bytes} bytes are less than the {size} of what is copied");
                    return Err(Error::new(ErrorKind::OutOfRange, text));
                }
                Some(source)
            }
            None => None,
        };
        let creation = Creation {
            driver: self.driver().to_owned(),
            volume: request.name.clone(),
            is_named: parameters.get("containername").is_some() && directory.is_none(),
            keeps: parameters.keeps()?,
            place,
            wanted_bytes,
            source,
            copies: self.copies.clone(),
            patience,
        };
        let moved = request.clone();
        let operation = async move {
            creation.run().await?;
            let volume = describe(&moved, &parameters, &creation, directory);
            Ok(CreateVolumeResponse { volume: Some(volume) })
        };
        let response = self.creations.run(&request.name, &request, operation).await?;
        let id = response.volume.as_ref().map_or("", |volume| volume.volume_id.as_str());
        tracing::info!(name = request.name, volume = id, "created");
        Ok(response)
    }

    /// What is to be copied, and its size in bytes where that is known.
    async fn source(
        &self,
        source: &VolumeContentSource,
        account: &Account,
        secrets: &BTreeMap<String, String>,
    ) -> Result<(Source, u64)> {
        let (handle, is_snapshot) = match &source.r#type {
            Some(volume_content_source::Type::Snapshot(SnapshotSource { snapshot_id })) => (snapshot_id, true),
            Some(volume_content_source::Type::Volume(VolumeSource { volume_id })) => (volume_id, false),
            None => return Err(Error::invalid("volume_content_source names neither a snapshot nor a volume")),
        };
        let missing = || match is_snapshot {
            true => Error::new(ErrorKind::NotFound, format!("There is no snapshot {handle:?}")),
            false => no_volume(handle),
        };
        let place = self.source_place(handle, account, secrets).await?.ok_or_else(missing)?;
        let found = place.find("copy").await?.ok_or_else(missing)?;
        if is_snapshot && !(found.marks.is_by(self.driver()) && found.marks.snapshot_name().is_some()) {
            return Err(missing());
        }
        if let Some(copy) = found.marks.copy().filter(|copy| !copy.is_done) {
            let text = format!("{handle:?} is still being copied itself ({} blobs so far); try again", copy.blobs);
            return Err(Error::new(ErrorKind::InProgress, text));
        }
        let size = found.marks.recorded_capacity().unwrap_or_default();
        Ok((Source { handle: handle.clone(), place }, size))
    }

    /// Within the account of the new volume its credential opens the source; that of another account is found like any volume's.
    async fn source_place(
        &self,
        handle: &str,
        account: &Account,
        secrets: &BTreeMap<String, String>,
    ) -> Result<Option<Place>> {
        if let Ok(VolumeId { account: Some(name), container: Some(container), directory, .. }) = VolumeId::parse(handle)
            && account.location(&container).is_ok_and(|location| location.account() == name)
        {
            return self.place(account, &container, directory.as_deref()).map(Some);
        }
        // The secrets of this call are those of the new volume's account.
        let own = match self.volume(handle, &BTreeMap::new()).await {
            Err(error) if error.kind == ErrorKind::NoCredential => self.volume(handle, secrets).await?,
            found => found?,
        };
        let Some(Volume { place, .. }) = own else { return Ok(None) };
        let wanted = VolumeId::parse(handle).ok().and_then(|id| id.account);
        // A Secret's account goes before the handle's: there, something else may have this name.
        if wanted.as_deref().is_some_and(|wanted| wanted != place.location().account()) {
            let text =
                format!("{handle:?} is in another account, which needs a credential of its own to be copied from");
            return Err(Error::new(ErrorKind::NoCredential, text));
        }
        Ok(Some(place))
    }
}

/// Container and directory of a new volume.
fn target(parameters: &Parameters, volume: &str) -> Result<(String, Option<String>)> {
    let named = parameters.container()?;
    let prefix = parameters.get("containernameprefix");
    if named.is_some() && prefix.is_some() {
        return Err(Error::invalid("containerName and containerNamePrefix exclude each other"));
    }
    let directory = parameters.sub_directory()?;
    if directory.is_some() && parameters.get("prefix").is_some() {
        return Err(Error::invalid("subDir and prefix exclude each other: write the prefix into subDir"));
    }
    match (named, directory) {
        (Some(container), directory) => Ok((container, directory)),
        (None, Some(_)) => Err(Error::invalid("subDir needs containerName: the container that the volumes share")),
        (None, None) => Ok((container_name(volume, prefix)?, None)),
    }
}

impl Creation {
    fn marks(&self) -> Marks {
        let mut marks = Marks::by(&self.driver).volume(&self.volume);
        if !self.is_named {
            marks = marks.capacity(self.wanted_bytes);
        }
        if self.keeps {
            marks = marks.kept();
        }
        match &self.source {
            Some(source) => marks.copy_of(&source.handle, now_seconds()),
            None => marks,
        }
    }

    /// Makes the place, or finds it made, and copies what is to be in it.
    async fn run(&self) -> Result<()> {
        let mut marks = self.marks();
        if self.place.is_directory() && self.place.find("create").await?.is_none() && self.has_content().await? {
            if self.source.is_some() {
                return Err(self.exists("has content already"));
            }
            tracing::warn!(
                volume = self.volume,
                place = self.place.shown(),
                "older than the volume: it is never deleted"
            );
            marks = marks.kept();
        }
        if !self.place.make(&self.driver, &marks).await? {
            self.adopt().await?;
        }
        let Some(source) = &self.source else { return Ok(()) };
        let found = self.place.find("look at").await?;
        if found.and_then(|found| found.marks.copy()).is_some_and(|copy| copy.is_done) {
            return Ok(());
        }
        let copy = Copy { source: source.place.clone(), destination: self.place.clone() };
        match self.copies.wait(copy, self.patience).await? {
            Outcome::Done => Ok(()),
            Outcome::Running(progress) => {
                let text = format!(
                    "Volume {:?} is being copied from {:?}: {progress} so far; the copy goes on, and a repeated call finds it",
                    self.volume, source.handle
                );
                Err(Error::new(ErrorKind::InProgress, text))
            }
        }
    }

    /// Whether something lies below the directory, whoever put it there.
    async fn has_content(&self) -> Result<bool> {
        let request = ListRequest { prefix: self.place.prefix(), max_results: Some(1), ..ListRequest::default() };
        match self.place.store.list(&request).await {
            Ok(page) => Ok(!page.entries.is_empty()),
            Err(error) if error.kind == crate::blob::ErrorKind::ContainerNotFound => Ok(false),
            Err(error) => Err(self.place.failed("list", error)),
        }
    }

    fn exists(&self, how: &str) -> Error {
        let text = format!("{} {how}, and is not volume {:?}", self.place.shown(), self.volume);
        Error::new(ErrorKind::AlreadyExists, text)
    }

    /// The place exists: is it this volume's?
    async fn adopt(&self) -> Result<()> {
        let Some(found) = self.place.find("create").await? else {
            return Err(Error::new(ErrorKind::Unavailable, "The place vanished while it was looked at; try again"));
        };
        let marks = &found.marks;
        if marks.is_of(&self.driver, Some(&self.volume)) && (marks.names_volume() || !self.place.is_directory()) {
            return self.is_alike(marks);
        }
        if self.source.is_none() {
            if self.is_named {
                return Ok(());
            }
            if self.place.is_directory() {
                return self.share(&found).await;
            }
        }
        Err(self.exists("exists already"))
    }

    /// Made for this volume by an earlier call: of the same size, and a copy of the same?
    fn is_alike(&self, marks: &Marks) -> Result<()> {
        let wanted = self.source.as_ref().map(|source| source.handle.clone());
        if marks.source() != wanted {
            return Err(self.exists("exists already as a copy of something else"));
        }
        match marks.recorded_capacity().filter(|_| !self.is_named) {
            Some(known) if known != self.wanted_bytes => {
                let text =
                    format!("Volume {:?} exists already with {known} bytes, not {}", self.volume, self.wanted_bytes);
                Err(Error::new(ErrorKind::AlreadyExists, text))
            }
            _ => Ok(()),
        }
    }

    /// The directory exists, and was not made for this volume: one that nobody will delete may be used.
    async fn share(&self, found: &Found) -> Result<()> {
        let marks = &found.marks;
        if !marks.is_by(&self.driver) {
            tracing::warn!(
                volume = self.volume,
                place = self.place.shown(),
                "made by somebody else: it is never deleted"
            );
            return Ok(());
        }
        if !marks.is_kept() {
            return Err(self.exists("exists already for another volume"));
        }
        let marks = marks.clone().volume(&self.volume).capacity(self.wanted_bytes);
        self.place.mark("create", found, marks).await.map(drop)
    }
}

pub(super) fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The volume as the provisioner records it: the handle, and the parameters as attributes (the node needs them).
fn describe(
    request: &CreateVolumeRequest,
    parameters: &Parameters,
    creation: &Creation,
    directory: Option<String>,
) -> v1::Volume {
    let location = creation.place.location();
    let namespace = parameters.get("secretnamespace").or_else(|| parameters.get("csi.storage.k8s.io/pvc/namespace"));
    let id = VolumeId {
        resource_group: parameters.get("resourcegroup").map(str::to_owned),
        account: Some(location.account().to_owned()),
        container: Some(location.container().to_owned()),
        // Volumes that share a container would otherwise share a handle.
        uuid: (creation.is_named || directory.is_some()).then(|| request.name.clone()),
        directory: directory.clone(),
        secret_namespace: Some(namespace.unwrap_or(SECRET_NAMESPACE_DEFAULT).to_owned()),
        subscription: parameters.get("subscriptionid").map(str::to_owned),
    };
    let mut context: BTreeMap<String, String> = request.parameters.clone();
    let is_resolved = |key: &str| ["containername", "subdir"].iter().any(|own| key.eq_ignore_ascii_case(own));
    context.retain(|key, _| !is_resolved(key));
    context.insert("containername".to_owned(), location.container().to_owned());
    if let Some(directory) = directory {
        context.insert("subdir".to_owned(), directory);
    }
    v1::Volume {
        capacity_bytes: i64::try_from(creation.wanted_bytes).unwrap_or(i64::MAX),
        volume_id: id.to_string(),
        volume_context: context,
        content_source: request.volume_content_source.clone(),
        ..v1::Volume::default()
    }
}
