//! Who gets the next place at the gate, and how the limit follows a link.

use super::*;

const MIB: u64 = 1 << 20;

#[tokio::test]
async fn a_dropped_pass_gives_its_place_back() {
    let gate = RequestGate::new(1);
    let pass = gate.enter(VolumeId::next(), Urgency::Awaited).await;
    assert_eq!(gate.free(), 0);
    assert!(gate.try_enter().is_none());
    drop(pass);
    assert_eq!(gate.free(), 1);
}

/// The order in which the calls of `queue` get the only place.
async fn order(queue: &[(VolumeId, Urgency, &'static str)]) -> Vec<&'static str> {
    let gate = RequestGate::new(1);
    let held = gate.enter(VolumeId::next(), Urgency::Awaited).await;
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    for (volume, urgency, name) in queue.iter().copied() {
        let (gate, told) = (gate.clone(), told.clone());
        tokio::spawn(async move {
            let pass = gate.enter(volume, urgency).await;
            told.send(name).unwrap();
            drop(pass);
        });
        // One thread: it queues before the next one does.
        tokio::task::yield_now().await;
    }
    drop((held, told));
    let mut order = Vec::new();
    while let Some(name) = heard.recv().await {
        order.push(name);
    }
    assert_eq!(gate.free(), 1);
    order
}

#[tokio::test]
async fn what_somebody_waits_for_goes_before_what_is_fetched_ahead() {
    let (one, other) = (VolumeId::next(), VolumeId::next());
    let ahead = [(one, Urgency::Ahead, "ahead 1"), (other, Urgency::Ahead, "ahead 2")];
    let queue = [&ahead[..], &[(one, Urgency::Awaited, "read")]].concat();
    assert_eq!(order(&queue).await, ["read", "ahead 1", "ahead 2"]);
}

#[tokio::test]
async fn what_is_fetched_ahead_gets_a_turn_even_while_others_queue() {
    let volume = VolumeId::next();
    let queue = [&[(volume, Urgency::Ahead, "ahead")][..], &[(volume, Urgency::Awaited, "read"); 20]].concat();
    assert_eq!(order(&queue).await.iter().position(|name| *name == "ahead"), Some(EAGER_TURNS as usize - 1));
}

#[tokio::test]
async fn a_volume_with_a_long_queue_takes_turns_with_one_that_asks_once() {
    let (busy, quiet) = (VolumeId::next(), VolumeId::next());
    let queue = [&[(busy, Urgency::Awaited, "busy"); 10][..], &[(quiet, Urgency::Awaited, "quiet")]].concat();
    assert_eq!(order(&queue).await.iter().position(|name| *name == "quiet"), Some(1));
}

#[tokio::test]
async fn a_call_that_went_away_in_the_queue_leaves_its_place_to_the_next() {
    let gate = RequestGate::new(1);
    let volume = VolumeId::next();
    let held = gate.enter(volume, Urgency::Awaited).await;
    let waiting = [gate.enter(volume, Urgency::Awaited), gate.enter(volume, Urgency::Awaited)];
    let [gone, mut stays] = waiting.map(Box::pin);
    let mut gone = gone;
    assert!(futures::poll!(gone.as_mut()).is_pending());
    assert!(futures::poll!(stays.as_mut()).is_pending());
    drop(gone);
    drop(held);
    assert!(stays.await.is_some());
    assert_eq!(gate.free(), 1);
}

/// Runs a limit against a link whose throughput is `rate` of the requests in flight, for so many measurements.
fn follow(limit: &mut Limit, now: &mut Instant, measurements: u32, rate: impl Fn(usize) -> u64) {
    for _ in 0..measurements {
        limit.full = true;
        *now += MEASURE_TIME;
        limit.moved(rate(limit.requests), *now);
    }
}

#[test]
fn the_limit_grows_as_long_as_that_helps_and_goes_back_when_it_does_not() {
    let mut now = Instant::now();
    let mut limit = Limit::new(64, now);
    follow(&mut limit, &mut now, 10, |requests| requests.min(100) as u64 * 30 * MIB);
    assert!((96..=110).contains(&limit.requests), "{}", limit.requests);
    // The link got wider: found out by the next trials.
    follow(&mut limit, &mut now, 40, |requests| requests as u64 * 30 * MIB);
    assert_eq!(limit.requests, 64 * REQUESTS_IN_FLIGHT_GROWTH);
}

#[test]
fn a_limit_that_nobody_meets_stays() {
    let mut now = Instant::now();
    let mut limit = Limit::new(64, now);
    for _ in 0..100 {
        now += MEASURE_TIME;
        limit.moved(100 * MIB, now);
    }
    assert_eq!(limit.requests, 64);
}

#[test]
fn a_limit_that_is_met_after_every_rest_does_not_creep_up() {
    let mut now = Instant::now();
    let mut limit = Limit::new(64, now);
    for _ in 0..20 {
        // The first reply after the rest, then a burst that the link cannot do faster.
        limit.full = true;
        now += 20 * MEASURE_TIME;
        limit.moved(30 * MIB, now);
        follow(&mut limit, &mut now, 2, |_| 64 * 30 * MIB);
        now += MEASURE_TIME;
        limit.moved(0, now);
    }
    assert_eq!(limit.requests, 64);
}

#[test]
fn a_service_that_is_asked_too_much_halves_the_limit_once_for_all_its_refusals() {
    let mut now = Instant::now();
    let mut limit = Limit::new(64, now);
    for _ in 0..50 {
        limit.refused(now);
    }
    assert_eq!(limit.requests, 32);
    for _ in 0..10 {
        now += REFUSALS_TIME;
        limit.refused(now);
    }
    assert_eq!(limit.requests, 64 / LIMIT_SHRINK_MAX);
    follow(&mut limit, &mut now, 40, |requests| requests as u64 * 30 * MIB);
    // The last step would be too short to show.
    assert!(limit.requests >= 240, "{}", limit.requests);
}
