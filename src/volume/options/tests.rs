//! Claims about mount options: every form parses, nothing is dropped in silence, the docs agree.

use std::{collections::HashSet, time::Duration};

use super::*;

fn parse(items: &[&str]) -> MountOptions {
    MountOptions::parse(items).unwrap().0
}

fn error(item: &str) -> String {
    MountOptions::parse([item]).unwrap_err().to_string()
}

#[test]
fn every_form_means_the_same() {
    let wanted = parse(&["allow_other,uid=1000"]);
    assert!(wanted.allow_other && wanted.uid == Some(1000));
    for form in [
        &["-o allow_other", "-o uid=1000"][..],
        &["-o allow_other,uid=1000"],
        &["-o", "allow_other,uid=1000"],
        &["-oallow_other", "-ouid=1000"],
        &["--allow-other", "--uid=1000"],
        &["--allow-other=true", "--uid 1000"],
        &["--uid", "1000", "allow_other"],
        &["ALLOW-OTHER", "Uid=1000"],
    ] {
        assert_eq!(parse(form), wanted, "{form:?}");
    }
}

#[test]
fn the_storage_class_of_aks_parses_and_its_timeouts_hold() {
    let (options, warnings) = MountOptions::parse([
        "-o allow_other",
        "--file-cache-timeout-in-seconds=120",
        "--use-attr-cache=true",
        "--cancel-list-on-mount-seconds=10",
        "-o attr_timeout=120",
        "-o entry_timeout=60",
        "-o negative_timeout=120",
        "--log-level=LOG_WARNING",
        "--cache-size-mb=1000",
    ])
    .unwrap();
    assert!(options.allow_other);
    assert_eq!(options.settings().metadata_ttl, Duration::from_secs(60), "the shortest of the timeouts");
    assert_eq!(options.view_settings().file_mode, 0o777);
    assert_eq!(warnings.len(), 5, "{warnings:#?}");
    assert!(warnings.iter().any(|text| text.contains("cache-size-mb")), "{warnings:#?}");
}

#[test]
fn metadata_ttl_goes_before_the_timeouts_of_libfuse() {
    assert_eq!(parse(&["attr_timeout=1,metadata-ttl=30s"]).settings().metadata_ttl, Duration::from_secs(30));
}

#[test]
fn modes_come_from_the_mode_then_the_umask_then_allow_other() {
    let view = |items: &[&str]| {
        let view = parse(items).view_settings();
        (view.file_mode, view.dir_mode)
    };
    assert_eq!(view(&[]), (0o644, 0o755));
    assert_eq!(view(&["allow_other"]), (0o777, 0o777));
    assert_eq!(view(&["allow_other,umask=022"]), (0o755, 0o755));
    assert_eq!(view(&["allow_other,umask=022,file_mode=0600"]), (0o600, 0o755));
}

#[test]
fn the_last_of_ro_and_rw_wins() {
    assert!(parse(&["rw,ro"]).read_only);
    assert!(!parse(&["ro,rw"]).read_only);
    assert!(!parse(&["--read-only=false"]).read_only);
}

#[test]
fn an_unknown_option_is_named_with_the_nearest_known_one() {
    let text = error("-o alow_other");
    assert!(text.contains("\"alow_other\"") && text.contains("did you mean \"allow_other\"?"), "{text}");
    let text = error("--zzzzzzzzzzzzzzzz=1");
    assert!(text.contains("zzzzzzzzzzzzzzzz") && !text.contains("did you mean"), "{text}");
}

#[test]
fn bad_values_say_what_is_right() {
    assert!(error("uid=root").contains("uid=root") && error("uid=root").contains("such as 1000"));
    assert!(error("umask=999").contains("octal"));
    assert!(error("consistency=eventual").contains("close-to-open"));
    assert!(error("metadata-ttl=soon").contains("10s"));
    assert!(error("uid").contains("needs a value"));
    assert!(error("ro=maybe").contains("true or false"));
}

#[test]
fn what_would_be_dangerous_to_ignore_is_refused() {
    assert!(error("--cpk-enabled=true").contains("not supported"));
    assert!(error("--filter=size>1").contains("not supported"));
    assert!(MountOptions::parse(["--cpk-enabled=false"]).is_ok());
}

#[test]
fn names_of_the_table_are_unique_and_every_row_explains_itself() {
    let mut seen = HashSet::new();
    for row in TABLE {
        for name in std::iter::once(&row.name).chain(row.also) {
            assert!(seen.insert(normal(name)), "{name} stands twice");
        }
        match row.effect {
            Effect::Sets(_) => assert!(!row.doc.is_empty() && !row.default.is_empty(), "{}", row.name),
            Effect::None(reason) | Effect::Refused(reason) => assert!(!reason.is_empty(), "{}", row.name),
        }
    }
}

#[test]
fn every_blobfuse_option_of_the_upstream_driver_is_known() {
    let upstream = "allow_other ro rw uid gid umask default_permissions nonempty direct_io attr_timeout entry_timeout \
        negative_timeout read-only use-adls subdirectory virtual-directory no-symlinks log-level container-name tmp-path \
        cache-size-mb file-cache-timeout-in-seconds file-cache-timeout use-attr-cache attr-cache-timeout \
        attr-cache-max-size-mb kernel-list-cache-timeout cancel-list-on-mount-seconds disable-kernel-cache \
        disable-writeback-cache ignore-open-flags block-cache block-cache-block-size block-cache-pool-size \
        block-cache-disk-size block-cache-disk-timeout block-cache-path block-cache-prefetch \
        block-cache-prefetch-on-open block-cache-parallelism block-cache-strong-consistency streaming block-size-mb \
        max-blocks-per-file max-concurrency max-retry max-retry-interval-in-seconds retry-delay-factor cap-mbps-read \
        cap-iops lazy-write upload-modified-only sync-to-flush ignore-sync filter honour-acl preserve-acl cpk-enabled \
        set-content-type preload pre-mount-validate use-https empty-dir-check basic-remount-check wait-for-mount \
        foreground log-type log-file-path disable-version-check telemetry cleanup-on-start low-disk-threshold \
        high-disk-threshold max-eviction hard-limit required-free-space-mb pool-size workers disable-compression \
        cache-on-list list-cache-timeout cache-poll-timeout-msec";
    for name in upstream.split_whitespace() {
        assert!(find(name).is_some(), "{name} would break a mount");
    }
}

#[test]
fn sizes_and_durations_read_as_people_write_them() {
    assert_eq!(parse_bytes("256MiB"), Ok(256 << 20));
    assert_eq!(parse_bytes("1.5g"), Ok(3 << 29));
    assert_eq!(parse_bytes("4096"), Ok(4096));
    assert!(parse_bytes("lots").unwrap_err().contains("256MiB"));
    assert!(parse_bytes("99999999999T").is_err());
    assert_eq!(format_bytes(256 << 20), "256MiB");
    assert_eq!(format_bytes(1000), "1000B");
    assert_eq!(parse_duration("120"), Ok(Duration::from_secs(120)));
    assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
    assert!(parse_duration("-1").is_err());
}

/// Every option that StorageClasses and PersistentVolumes for the Azure Blob CSI driver and blobfuse are known to carry.
#[test]
fn every_mount_option_of_blobfuse_parses_in_every_form() {
    let options = "allow_other ro rw uid=1000 gid=1000 umask=022 default_permissions nonempty direct_io attr_timeout=120 \
        entry_timeout=120 negative_timeout=120 attr-timeout=120 entry-timeout=120 negative-timeout=120 read-only allow-other \
        use-adls=true subdirectory=a/b virtual-directory=true no-symlinks=true log-level=LOG_WARNING container-name=c \
        tmp-path=/mnt/cache cache-size-mb=1000 file-cache-timeout-in-seconds=120 file-cache-timeout=120 use-attr-cache=true \
        attr-cache-timeout=120 attr-cache-max-size-mb=100 kernel-list-cache-timeout=120 cancel-list-on-mount-seconds=10 \
        disable-kernel-cache disable-writeback-cache=true ignore-open-flags=true block-cache block-cache-block-size=16 \
        block-cache-pool-size=1000 block-cache-disk-size=1000 block-cache-disk-timeout=120 block-cache-path=/mnt/c \
        block-cache-prefetch=12 block-cache-prefetch-on-open=true block-cache-parallelism=64 block-cache-strong-consistency \
        streaming=true block-size-mb=8 max-blocks-per-file=4 max-concurrency=32 max-retry=5 max-retry-interval-in-seconds=30 \
        retry-delay-factor=2 cap-mbps-read=100 cap-iops=100 lazy-write upload-modified-only=true sync-to-flush ignore-sync \
        cpk-enabled=false honour-acl=true preserve-acl=true set-content-type=true preload pre-mount-validate=true use-https=true \
        empty-dir-check=false basic-remount-check=true wait-for-mount=5s foreground=true log-type=syslog \
        log-file-path=/var/log/x disable-version-check=true telemetry=x cleanup-on-start=true low-disk-threshold=60 \
        high-disk-threshold=90 max-eviction=100 hard-limit=true required-free-space-mb=100 pool-size=100 workers=8 \
        disable-compression=true cache-on-list=true list-cache-timeout=120 cache-poll-timeout-msec=100";
    for option in options.split_whitespace() {
        let (name, value) = option.split_once('=').unwrap_or((option, "true"));
        for form in [format!("--{option}"), format!("-o {option}"), format!("-o{option}"), option.to_owned()] {
            assert!(MountOptions::parse([&form]).is_ok(), "{form}: {:?}", MountOptions::parse([&form]));
        }
        if find(name).is_some_and(|row| row.takes != Takes::Flag) {
            MountOptions::parse([format!("--{name} {value}")]).unwrap();
        }
    }
}

/// Set AZBLOB_UPDATE_DOCS=1 to write the table into the page instead of comparing.
#[test]
fn the_configuration_page_shows_this_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/CONFIGURATION.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (begin, end) = ("<!-- mount options: printed from src/volume/options/table.rs -->\n", "<!-- end -->");
    let (before, rest) = page.split_once(begin).expect("the page has the marker before the table");
    let (shown, after) = rest.split_once(end).expect("the page has the marker behind the table");
    if std::env::var_os("AZBLOB_UPDATE_DOCS").is_some() {
        std::fs::write(path, format!("{before}{begin}{}{end}{after}", markdown())).unwrap();
        return;
    }
    assert!(
        shown == markdown(),
        "docs/CONFIGURATION.md is out of date: run AZBLOB_UPDATE_DOCS=1 cargo test --lib options"
    );
}
