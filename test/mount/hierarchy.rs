//! The same claims on an account with a hierarchical namespace: what programs do, names, versions, crashes and pjdfstest.

#[test]
fn programs_and_pjdfstest_find_the_same_on_a_hierarchical_account() {
    harness::run_hierarchical(
        &[
            "conflicts::",
            "crash::",
            "data::",
            "kills::",
            "names::odd_names",
            "names::twelve_thousand",
            "overwrites::",
            "posix::",
            "programs::",
            "tail::",
            "versions::",
            "work::",
            "xattrs::",
        ],
        &[
            // Long, and about bytes, which go the same way on both sorts of account.
            "programs::fio_verifies_every_block",
            // One request there: it does not break off.
            "posix::a_rename_that_broke_off",
            "posix::every_applicable_case_of_pjdfstest_passes_where_nothing_expires",
        ],
    );
}
