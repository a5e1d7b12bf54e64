//! Names and URLs.

use azblob_csi::finding::Finding;

use crate::clinic::{Case, Clinic};

#[test]
fn each_mistake_in_a_name_is_told_apart() {
    let clinic = Clinic::new();
    let expected = "https://ACCOUNT.blob.core.windows.net/CONTAINER";
    for (arguments, environment, finding, words) in [
        (vec!["ftp://acme/data"], vec![], Finding::UrlMalformed, expected),
        (vec!["https://"], vec![], Finding::UrlMalformed, expected),
        (vec!["http://127.0.0.1:10000/devstoreaccount1"], vec![], Finding::UrlMalformed, "names no container"),
        (vec![], vec![], Finding::ContainerUnnamed, "AZURE_STORAGE_CONTAINER"),
        (vec!["https://acme.blob.core.windows.net/Bad_Name"], vec![], Finding::ContainerNameIllegal, "3 to 63"),
        (vec!["https://acme.blob.core.windows.net/ab"], vec![], Finding::ContainerNameIllegal, "length"),
        (vec!["--account", "Bad_Account", "logs"], vec![], Finding::AccountNameIllegal, "3 to 24"),
        (vec!["logs"], vec![], Finding::AccountUnnamed, "--account"),
        (
            vec!["--account", "other", "https://acme.blob.core.windows.net/logs"],
            vec![],
            Finding::AccountNamedTwice,
            "remove one",
        ),
        (
            vec!["--account", "acme", "logs"],
            vec![("AZURE_ENVIRONMENT", "AzureMarsCloud".to_owned())],
            Finding::CloudUnknown,
            "AzureChinaCloud",
        ),
    ] {
        let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
        let case = Case::new(finding, &[words]);
        let examined = clinic.examine(&arguments, &environment);
        let fix = clinic.found(&case, &examined);
        assert!(examined.with_result("ok").next().is_none(), "nothing else can be asked: {:#}", examined.report);
        let mut all = vec!["mount"];
        all.extend(arguments.iter().map(String::as_str));
        let point = clinic.world.directory("point");
        all.push(point.to_str().unwrap());
        let said = clinic.world.fails(&mut clinic.world.command_as(&all, &environment));
        assert!(said.contains(&fix), "{said}");
    }
    assert_eq!(clinic.world.emulator().counters().total(), 0, "no request was sent");
}
