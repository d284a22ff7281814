//! What was seen of the process over time, and whether it grew.

use std::collections::BTreeMap;
use std::process::ExitStatus;
use std::time::Instant;

use emulator::{Oauth2, Tokens};

use super::callers::Callers;
use super::program::Program;

/// The last quarter may hold so much more memory than the second one, in KiB: a leak of one byte for
/// every thirty requests is more in twenty minutes.
const GROWTH: u64 = 512;
/// And so many more descriptors: what the callers' and the upstream's restarts leave is closed.
const DESCRIPTORS: u64 = 16;

struct Look {
    minutes: f64,
    memory: u64,
    descriptors: u64,
}

/// Looks at the process, in the order of time.
pub struct Observed {
    begun: Instant,
    looks: Vec<Look>,
}

impl Observed {
    /// From now on.
    pub fn begin() -> Self {
        println!("   min     MiB  descriptors  tokens  answers");
        Self { begun: Instant::now(), looks: Vec::new() }
    }

    /// One more look; a line now and then.
    pub fn look(&mut self, daemon: &Program, callers: &Callers, tokens: &Tokens) {
        let (Some(memory), Some(descriptors)) = (daemon.memory(), daemon.descriptors()) else {
            return;
        };
        let minutes = self.begun.elapsed().as_secs_f64() / 60.0;
        if self.looks.len().is_multiple_of(12) {
            let (issued, counts) = (tokens.issued().len(), callers.counts());
            let answers: u64 = counts.values().sum();
            let mib = memory as f64 / 1024.0;
            println!("{minutes:6.1} {mib:7.2} {descriptors:12} {issued:7} {answers:8}");
        }
        self.looks.push(Look { minutes, memory, descriptors: descriptors as u64 });
    }

    /// Prints all of it; true if no promise was broken.
    pub fn verdict(
        &self,
        callers: &Callers,
        idp: &Oauth2,
        wrong: &BTreeMap<&'static str, u64>,
        ended: ExitStatus,
    ) -> bool {
        println!("\nanswers:");
        callers.counts().iter().for_each(|(word, count)| println!("{count:10}  {word}"));
        println!("refresh tokens spent: {}", idp.rotations());
        let mut faults: Vec<String> =
            wrong.iter().map(|(what, count)| format!("{count} tokens sent: {what}")).collect();
        faults.extend(callers.broken());
        faults.extend(idp.violations().iter().map(|violation| format!("{violation:?}")));
        if !ended.success() {
            faults.push(format!("ended with {ended}"));
        }
        for (what, allowed, of) in [
            ("KiB of memory", GROWTH, (|look: &Look| look.memory) as fn(&Look) -> u64),
            ("descriptors", DESCRIPTORS, |look: &Look| look.descriptors),
        ] {
            let quarter = self.looks.len() / 4;
            let early = median(&self.looks[quarter..2 * quarter], of);
            let late = median(&self.looks[3 * quarter..], of);
            let slope = slope(&self.looks[quarter..], of);
            println!(
                "{what}: {early} in the second quarter, {late} in the last ({slope:+.2} a minute)"
            );
            if late > early + allowed {
                faults.push(format!("{what} grew"));
            }
        }
        if faults.is_empty() {
            println!("no promise broken");
        }
        faults.iter().take(20).for_each(|fault| println!("BROKEN: {fault}"));
        faults.is_empty()
    }
}

fn median(looks: &[Look], of: fn(&Look) -> u64) -> u64 {
    let mut values: Vec<u64> = looks.iter().map(of).collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

/// Least squares, per minute.
fn slope(looks: &[Look], of: fn(&Look) -> u64) -> f64 {
    let count = looks.len() as f64;
    let mean = |value: &dyn Fn(&Look) -> f64| looks.iter().map(value).sum::<f64>() / count;
    let (time, size) = (mean(&|look| look.minutes), mean(&|look| of(look) as f64));
    let above: f64 = looks.iter().map(|l| (l.minutes - time) * (of(l) as f64 - size)).sum();
    let below: f64 = looks.iter().map(|l| (l.minutes - time).powi(2)).sum();
    above / below
}
