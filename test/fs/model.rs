//! A model of the whole: random operations of two nodes and a stranger on one container, with lost replies, refusals and
//! cut bodies in between, against a reference that knows only what is promised.
//!
//! | file | what it is for |
//! |---|---|
//! | `step` | what can be done, and how cases are drawn |
//! | `node` | one mounted volume, driven as a kernel drives it |
//! | `file` | what a program on a node believes of one inode |
//! | `oracle` | what each step may answer, and what the container must hold behind it |
//! | `behind` | one node with write-behind, which is killed again and again |
//!
//! The reference is not told what the container holds: it looks, before and after each step, and judges the difference.
//! So a case that goes on after a conflict is judged as sharply as its first step. `PROPTEST_CASES` sets how many cases
//! are drawn and `AZBLOB_TEST_SEED` which; a failure found by them becomes a named test of its own.

#[path = "model/behind.rs"]
mod behind;
#[path = "model/file.rs"]
mod file;
#[path = "model/node.rs"]
mod node;
#[path = "model/oracle.rs"]
mod oracle;
#[path = "model/step.rs"]
mod step;

use harness::length;
use proptest::{
    collection::vec,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

use self::{oracle::Oracle, step::Step};

/// Cases of a short and of a long run; each is up to `STEPS_MAX` steps and takes 0.2 s.
const CASES: (u32, u32) = (120, 6000);
const STEPS_MAX: usize = 60;

fn run(steps: &[Step]) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut oracle = Oracle::start().await;
        for (index, step) in steps.iter().enumerate() {
            oracle.judge(index, step).await;
        }
        oracle.finish().await;
    });
}

fn number_from_environment(name: &str) -> Option<u32> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn two_nodes_and_a_stranger_get_what_is_promised_whatever_they_do() {
    let cases = number_from_environment("PROPTEST_CASES").unwrap_or(length().of(CASES.0, CASES.1));
    let seed = [number_from_environment("AZBLOB_TEST_SEED").unwrap_or(1).to_be_bytes(); 8].concat();
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 400, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let drawn = runner.run(&vec(step::any_step(), 1..STEPS_MAX), |steps| {
        run(&steps);
        Ok(())
    });
    if let Err(failure) = drawn {
        panic!("{failure}");
    }
}
