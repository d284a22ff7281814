//! Many replicas, one register, one identity provider, and everything that can go wrong between
//! them, in random order from a seed: what must never happen is checked at every step.

mod provider;
mod register;
mod replica;
mod signing;
mod world;

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use fastrand::Rng;
use zeroize::Zeroizing;

use super::*;
use crate::secret::Fingerprint;
use crate::store::Record;
use provider::Kind;
use world::{Faults, NONE, World};

/// How long an intent stands, in milliseconds as everything here.
const LEASE: u64 = 3_000;
const SETTLE: u64 = 2_000;
/// Life of an access token.
const LIFE: u64 = 8_000;
/// As in `claim`.
const LONG_PAUSE: u64 = 300_000;

fn rounds(usual: u64) -> u64 {
    let times = std::env::var("BEARERD_TORTURE").ok().and_then(|times| times.parse().ok());
    usual * times.unwrap_or(1)
}

/// Runs one kind of world from many seeds and says what became of it.
fn explore(what: &str, kind: Kind, faults: Faults) {
    let (mut requests, mut logins, mut losses) = (0, 0, 0);
    let worlds = rounds(12);
    for seed in 0..worlds {
        // Told only if the test fails.
        println!("{what} {kind:?}: seed {seed}");
        let replicas = 2 + usize::try_from(seed % 5).unwrap();
        let mut world = World::new(seed, kind, faults, replicas);
        for _ in 0..3_000 {
            world.step();
            world.mend();
        }
        world.recovers();
        requests += world.provider.requests();
        logins += world.logins;
        losses += world.losses;
    }
    println!("| {what} | {kind:?} | {worlds} | {requests} | {logins} | {losses} |");
    let harmless = ["nothing", "lost acks", "conflicts", "logins"].contains(&what);
    if matches!(kind, Kind::Fixed | Kind::Fallback) || (harmless && kind != Kind::Slow) {
        assert_eq!(losses, 0, "{what}, {kind:?}");
    }
    assert!(requests > usize::try_from(worlds).unwrap() * 2, "hardly anything happened");
    assert!((faults.login == 0) == (logins == 0), "{logins} logins");
}

#[test]
fn no_fault_makes_a_spent_token_come_back_but_by_the_rule() {
    for kind in [Kind::Strict, Kind::Slow, Kind::Grace, Kind::Fixed, Kind::Fallback] {
        for (what, faults) in [
            ("nothing", NONE),
            ("pauses", Faults { pause: 10, ..NONE }),
            ("crashes", Faults { crash: 10, ..NONE }),
            ("lost replies", Faults { lost_reply: 100, ..NONE }),
            ("lost acks", Faults { lost_ack: 150, ..NONE }),
            ("conflicts", Faults { conflict: 50, ..NONE }),
            ("store down", Faults { down: 200, ..NONE }),
            ("last writes lost", Faults { lag: 5, lost_reply: 50, ..NONE }),
            ("logins", Faults { login: 5, ..NONE }),
            (
                "all",
                Faults {
                    pause: 5,
                    crash: 5,
                    lost_reply: 50,
                    lost_ack: 80,
                    conflict: 30,
                    down: 80,
                    lag: 2,
                    login: 3,
                },
            ),
        ] {
            explore(what, kind, faults);
        }
    }
}

#[test]
fn a_thousand_refusals_at_many_replicas_cost_one_call_a_generation() {
    for seed in 0..rounds(40) {
        let mut world = World::new(seed, Kind::Strict, NONE, 20);
        for _ in 0..20 {
            // Fifty at each of twenty replicas: a replica asks once for all of them.
            world.replicas.iter_mut().for_each(|replica| replica.refresh_at = 0);
            world.run(1_200);
        }
        let most = world.calls.values().max().copied();
        assert_eq!(most, Some(1), "seed {seed}: {:?}", world.calls);
        assert!(world.calls.len() >= 5, "hardly anything happened: {:?}", world.calls);
    }
}

#[test]
fn a_register_that_went_back_makes_nobody_send_an_old_token() {
    for seed in 0..rounds(60) {
        // Empty, or a copy that lags behind.
        for back in [None, Some(2), Some(3), Some(5), Some(8)] {
            println!("seed {seed}, back by {back:?}");
            let mut world = World::new(seed, Kind::Strict, NONE, 4);
            world.run(3_000);
            world.run_until(World::all_know);
            let before = world.provider.newest;
            assert!(before > 5);
            world.register.go_back(back);
            world.join();
            world.run(3_000);
            assert_eq!(world.provider.newest, before, "an old one was sent");
            assert!(world.replicas.iter().all(|replica| replica.dead), "nobody says so");
            world.bootstrap = world.provider.sign_in();
            world.run_until(World::all_serve);
            assert!(world.provider.reused.is_empty());
        }
    }
}

#[test]
fn nobody_asks_again_for_a_dead_token_that_a_lagging_register_has_alive() {
    for seed in 0..rounds(30) {
        let mut world = World::new(seed, Kind::Strict, NONE, 4);
        world.run(1_500);
        world.provider.revoke_all();
        world.run(1_500);
        assert!(world.replicas.iter().all(|replica| replica.dead));
        let requests = world.provider.requests();
        world.run_until(World::all_know);
        for back in [Some(1), Some(3), None] {
            world.register.go_back(back);
            world.join();
            world.run(2_000);
            assert!(world.replicas.iter().all(|replica| replica.dead), "seed {seed}, {back:?}");
            assert_eq!(world.provider.requests(), requests, "seed {seed}, {back:?}");
        }
    }
}

#[test]
fn what_was_kept_in_a_file_moves_in_before_anybody_sends_what_it_began_with() {
    for seed in 0..rounds(60) {
        for faults in [NONE, Faults { lost_ack: 200, conflict: 50, ..NONE }] {
            println!("seed {seed}, {faults:?}");
            let mut world = World::new(seed, Kind::Strict, faults, 4);
            // Alone until now, with a token that is spent, and used up a while ago.
            let newest = world.provider.refresh(1, 0).unwrap();
            world.provider.sends.entry(1).or_default();
            let record = world.record(newest, Some(1));
            world.replicas[0].protocol.move_in(record);
            world.run(3_000);
            assert!(world.provider.reused.is_empty(), "what it began with was sent");
            assert_eq!(world.provider.sends[&1].len(), 0);
            world.recovers();
            assert_eq!(world.losses, 0);
        }
    }
}
