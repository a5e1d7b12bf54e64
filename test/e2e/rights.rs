//! The rights of the driver's service accounts, held against what the scenarios made it ask for: `make e2e` runs this when they are
//! over. Nothing may have been refused, and what is granted was used or has its reason here.
//!
//! Reads the API server's audit log and the roles that are installed. Must not know which scenario asked for what.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    process::Command,
    time::Duration,
};

use serde_json::Value;

/// Service accounts of the driver and of its sidecars.
const ACCOUNTS: [&str; 2] =
    ["system:serviceaccount:kube-system:csi-blob-controller-sa", "system:serviceaccount:kube-system:csi-blob-node-sa"];

/// Rights that no scenario comes to use, with the reason why they are granted: (group/resource, verb, reason).
const RESERVED: [(&str, &str, &str); 7] = [
    ("/persistentvolumes", "get", "the node plugin looks for a volume of the name that it knows, before it lists"),
    ("/nodes", "get", "csi-provisioner looks at the node of a claim that waits for its first consumer"),
    ("snapshot.storage.k8s.io/volumesnapshotclasses", "list", WITHOUT_STREAMS),
    ("snapshot.storage.k8s.io/volumesnapshotcontents", "list", WITHOUT_STREAMS),
    ("/secrets", "create", "storeAccountKey: the driver writes the key of an account that it found or made"),
    (
        "/secrets",
        "update",
        "storeAccountKey: the key in that Secret is replaced when it is no longer one of the account",
    ),
    ("/events", "create", "the node plugin says of a claim that its SAS ends"),
];

/// Why csi-snapshotter may list what it only watches here.
const WITHOUT_STREAMS: &str =
    "where the API server cannot begin a watch with what is there (WatchList, which is on from Kubernetes 1.34 on)";

/// What is asked for although it is not granted, with the reason why that is right.
const DENIED: [(&str, &str, &str); 1] = [(
    "/secrets",
    "get",
    "the node plugin asks once when a Secret is refused; node.readSecrets of the chart grants it",
)];

/// A right: "group/resource" (with its subresource) and a verb.
type Right = (String, String);

fn right(group: &str, resource: &str, verb: &str) -> Right {
    (format!("{group}/{resource}"), verb.to_owned())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().map(text).collect()
}

/// Requests of the accounts: (account, right, status).
fn requests() -> Vec<(String, Right, u64)> {
    let log = PathBuf::from(std::env::var("E2E_DIR").unwrap()).join("state/log/audit");
    let log = fs::read_to_string(&log).unwrap_or_else(|error| panic!("{}: {error}", log.display()));
    let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let of_ours = events.filter(|event| ACCOUNTS.contains(&text(&event["user"]["username"])));
    // A request for a path, such as the list of API groups, is open to everybody.
    let of_resources = of_ours.filter(|event| event["objectRef"]["resource"].is_string());
    of_resources
        .map(|event| {
            let object = &event["objectRef"];
            let resource = match text(&object["subresource"]) {
                "" => text(&object["resource"]).to_owned(),
                subresource => format!("{}/{subresource}", text(&object["resource"])),
            };
            let asked = right(text(&object["apiGroup"]), &resource, text(&event["verb"]));
            (text(&event["user"]["username"]).to_owned(), asked, event["responseStatus"]["code"].as_u64().unwrap_or(0))
        })
        .collect()
}

fn objects(kinds: &str) -> Vec<Value> {
    let mut command = Command::new("kubectl");
    command.args(["get", kinds, "--all-namespaces", "-o", "json"]);
    let list: Value = serde_json::from_str(&harness::run(&mut command, Duration::from_secs(60)).success()).unwrap();
    list["items"].as_array().unwrap().clone()
}

/// What each account is granted by name.
fn granted() -> BTreeMap<String, BTreeSet<Right>> {
    let roles: BTreeMap<(String, String, String), Value> = objects("roles,clusterroles")
        .into_iter()
        .map(|role| {
            let metadata = &role["metadata"];
            let named = (text(&role["kind"]).to_owned(), text(&metadata["namespace"]).to_owned());
            ((named.0, named.1, text(&metadata["name"]).to_owned()), role["rules"].clone())
        })
        .collect();
    let mut granted: BTreeMap<String, BTreeSet<Right>> = BTreeMap::new();
    for binding in objects("rolebindings,clusterrolebindings") {
        for subject in binding["subjects"].as_array().into_iter().flatten() {
            let account = format!("system:serviceaccount:{}:{}", text(&subject["namespace"]), text(&subject["name"]));
            if !ACCOUNTS.contains(&&*account) {
                continue;
            }
            let reference = &binding["roleRef"];
            let kind = text(&reference["kind"]).to_owned();
            let namespace =
                if kind == "Role" { text(&binding["metadata"]["namespace"]).to_owned() } else { String::new() };
            let rules = &roles[&(kind, namespace, text(&reference["name"]).to_owned())];
            granted.entry(account).or_default().extend(rights_of(rules));
        }
    }
    granted
}

fn rights_of(rules: &Value) -> BTreeSet<Right> {
    let mut rights = BTreeSet::new();
    for rule in rules.as_array().into_iter().flatten() {
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                rights.extend(texts(&rule["verbs"]).into_iter().map(|verb| right(group, resource, verb)));
            }
        }
    }
    rights
}

#[test]
fn nothing_was_refused_and_every_right_was_used() {
    let requests = requests();
    assert!(requests.len() > 100, "only {} requests are in the audit log: run the scenarios first", requests.len());
    let known = |(resource, verb): &Right| DENIED.iter().any(|(name, other, _)| name == resource && other == verb);
    let refused: BTreeSet<_> = requests.iter().filter(|(_, asked, status)| *status == 403 && !known(asked)).collect();
    assert!(refused.is_empty(), "refused: {refused:#?}");
    let mut unused = Vec::new();
    for (account, rights) in granted() {
        for (resource, verb) in rights {
            let used =
                requests.iter().any(|(who, asked, _)| *who == account && *asked == (resource.clone(), verb.clone()));
            let reserved = RESERVED.iter().any(|(name, other, _)| *name == resource && *other == verb);
            if !used && !reserved {
                unused.push(format!("{account}: {verb} {resource}"));
            }
        }
    }
    assert!(unused.is_empty(), "granted and never used:\n{}", unused.join("\n"));
}
