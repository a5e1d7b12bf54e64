//! What cannot be mounted: exit code 1 within 10 seconds, one sentence with the fix, nothing left behind, no secret.
//! (The harness's `World::fails` checks all but the sentence.)

use std::{fs, net::TcpListener, process::Command};

use harness::World;

use crate::world;

/// A key of the right form that opens nothing.
const WRONG_KEY: &str = "d3Jvbmcga2V5IG9mIHRoZSByaWdodCBmb3JtISB3cm9uZyBrZXkgb2YgdGhlIHJpZ2h0IGZvcm0hIHdyb25nIA==";

fn mount_of(world: &World, url: &str, point: &str) -> Command {
    world.command(&["mount", url, point])
}

#[track_caller]
fn says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "\"{word}\" is missing in: {text}");
    }
    assert!(text.lines().count() <= 12, "not one clear sentence: {text}");
}

fn point(world: &World) -> String {
    world.directory("point").display().to_string()
}

#[test]
fn a_wrong_key_says_to_copy_the_current_one() {
    let world = world();
    let text = world.fails(mount_of(&world, &world.url(), &point(&world)).env("AZURE_STORAGE_KEY", WRONG_KEY));
    says(&text, &["AuthenticationFailed", "devstoreaccount1", "copy the current one"]);
    assert!(!text.contains(WRONG_KEY));
}

#[test]
fn a_key_that_is_no_base64_is_named_before_any_request() {
    let world = world();
    let text = world.fails(mount_of(&world, &world.url(), &point(&world)).env("AZURE_STORAGE_KEY", "not a key!"));
    says(&text, &["AZURE_STORAGE_KEY", "base64"]);
    assert_eq!(world.emulator().counters().total(), 0);
}

#[test]
fn a_missing_container_says_how_to_make_it_and_create_container_does() {
    let world = world();
    let url = format!("{}/missing", world.emulator().endpoint());
    let text = world.fails(&mut mount_of(&world, &url, &point(&world)));
    says(&text, &["ContainerNotFound", "Container missing", "--create-container"]);
    assert_eq!(world.emulator().containers(), [world.container()]);
    world.emulator().delete_container(world.container());
    let mount = world.mount(&["--create-container"]);
    fs::write(mount.path("a"), b"1").unwrap();
    mount.unmount();
    assert_eq!(world.emulator().names(world.container()), ["a"]);
}

#[test]
fn nobody_at_the_endpoint_is_said_with_host_and_port() {
    let world = world();
    // Bound, then dropped: a port that refuses.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}/devstoreaccount1/data");
    let text = world.fails(&mut mount_of(&world, &url, &point(&world)));
    says(&text, &[&format!("127.0.0.1:{port}"), "Nobody listens", "check host and port"]);
}

#[test]
fn an_endpoint_that_never_answers_fails_within_ten_seconds() {
    let world = world();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/devstoreaccount1/data", silent.local_addr().unwrap());
    let text = world.fails(&mut mount_of(&world, &url, &point(&world)));
    says(&text, &["no answer within the deadline", "firewall"]);
}

#[test]
fn a_name_that_does_not_resolve_is_said_to_be_one() {
    let world = world();
    let url = "https://nosuchaccount.blob.invalid/data";
    let text = world.fails(&mut mount_of(&world, url, &point(&world)));
    says(&text, &["nosuchaccount.blob.invalid", "does not resolve"]);
}

#[test]
fn a_bad_sas_says_so_without_showing_it() {
    let world = world();
    let sas = "sv=2021-12-02&ss=b&srt=sco&sp=rwdlac&se=2099-01-01T00:00:00Z&sig=c2VjcmV0c2lnbmF0dXJl";
    let mut command = mount_of(&world, &world.url(), &point(&world));
    let text = world.fails(command.env_remove("AZURE_STORAGE_KEY").env("AZURE_STORAGE_SAS_TOKEN", sas));
    says(&text, &["AuthenticationFailed", "SAS"]);
    assert!(!text.contains("c2VjcmV0c2lnbmF0dXJl"), "{text}");
    let text = world.fails(&mut mount_of(&world, &format!("{}?{sas}", world.url()), &point(&world)));
    assert!(!text.contains("c2VjcmV0c2lnbmF0dXJl"), "{text}");
    let mut command = mount_of(&world, &world.url(), &point(&world));
    let text = world.fails(command.env_remove("AZURE_STORAGE_KEY").env("AZURE_STORAGE_SAS_TOKEN", "sv=2021&sp=r"));
    says(&text, &["AZURE_STORAGE_SAS_TOKEN", "sig="]);
}

#[test]
fn no_credential_for_a_private_container_names_what_to_set() {
    let world = world();
    let text = world.fails(mount_of(&world, &world.url(), &point(&world)).env_remove("AZURE_STORAGE_KEY"));
    says(&text, &["not public", "key"]);
}

#[test]
fn a_bad_url_shows_the_right_forms() {
    let world = world();
    for url in ["ftp://acme/data", "https://", "http://127.0.0.1:10000/devstoreaccount1"] {
        let text = world.fails(&mut mount_of(&world, url, &point(&world)));
        says(&text, &["https://ACCOUNT.blob.core.windows.net/CONTAINER"]);
    }
    let text = world.fails(&mut mount_of(&world, &format!("{}/Bad_Name", world.emulator().endpoint()), &point(&world)));
    says(&text, &["Bad_Name", "3 to 63 characters"]);
}

#[test]
fn a_mount_point_that_cannot_be_is_said_with_the_fix() {
    let world = world();
    let missing = world.path("missing").display().to_string();
    says(&world.fails(&mut mount_of(&world, &world.url(), &missing)), &[&missing, "mkdir"]);
    let file = world.path("file");
    fs::write(&file, b"").unwrap();
    let file = file.display().to_string();
    says(&world.fails(&mut mount_of(&world, &world.url(), &file)), &[&file, "not a directory"]);
}

#[test]
fn a_user_who_may_not_mount_is_told_so() {
    let world = world();
    // The world's directory is root's alone: open the way for another user, who then lacks only the right to mount.
    let open = |path: &std::path::Path| {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    };
    let point = world.directory("point");
    open(point.parent().unwrap());
    let mut command = Command::new("setpriv");
    let args = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    // The binary may lie in a home directory that others cannot enter: a copy that they can run.
    let copy = world.path("azblob-csi");
    fs::copy(env!("CARGO_BIN_EXE_azblob-csi"), &copy).unwrap();
    command.args(args).arg(&copy).args(["mount", &world.url()]).arg(&point);
    let parent = std::env::temp_dir();
    let reachable = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&parent).unwrap().permissions()) & 0o5 == 0o5;
    if !reachable {
        open(&parent);
    }
    let text = world.fails(command.env("AZURE_STORAGE_KEY", world.emulator().key()));
    says(&text, &["not permitted", "run as root"]);
}

#[test]
fn bad_options_are_named() {
    let world = world();
    let point = point(&world);
    let with = |args: &[&str]| {
        let url = world.url();
        let mut all = vec!["mount"];
        all.extend(args);
        all.extend([url.as_str(), point.as_str()]);
        world.fails(&mut world.command(&all))
    };
    says(&with(&["-o", "allow_othr"]), &["allow_othr", "did you mean \"allow_other\"?"]);
    says(&with(&["-o", "uid=me"]), &["uid=me", "such as 1000"]);
    says(&with(&["--memory", "lots"]), &["lots", "256MiB"]);
    says(&with(&["--memory", "1MiB"]), &["at least 16 MiB"]);
    says(&with(&["--consistency", "eventual"]), &["eventual", "close-to-open"]);
    says(
        &world.fails(&mut world.command(&["--log-level", "info,fs=loud", "mount", &world.url(), &point])),
        &["log level"],
    );
}
