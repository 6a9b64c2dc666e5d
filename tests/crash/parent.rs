//! Kills, counts and judges.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use counterfoil::audit::Record;
use counterfoil::evidence::Log;
use counterfoil::journal::JournalError;
use counterfoil::ledger::{LedgerError, RunFolder};
use counterfoil::verify::{Judgement, unconfirmed};

use crate::child::{FLUSHES, FOLDER, SEED, fingerprint};
use crate::disk::{Disk, compile};
use crate::random::Random;

/// Kills after which a new run begins: a verification reads the whole run.
const KILLS_OF_A_RUN: u64 = 12;
/// More calls than a child makes that ends by itself.
const FOREVER: u64 = 1 << 20;

pub(crate) fn main() {
    let kills: u64 = std::env::var("CRASH_KILLS").map_or(30, |text| text.parse().expect("a number"));
    let folder = tempfile::tempdir().unwrap();
    let Some(library) = compile(folder.path()) else {
        println!("crash: skipped, there is no C compiler (cc) to build the disk that forgets with");
        return;
    };
    // Unoptimised signatures take most of the time: a small test makes and verifies fewer.
    let every = if kills < 1000 { 6 } else { 1 };
    let begun = Instant::now();
    let honest = kill_often(folder.path(), &library, kills, every, true);
    println!("crash: {honest}; {:.0} s", begun.elapsed().as_secs_f64());
    assert!(honest.holds(), "the promise does not hold");
    if every == 1 {
        assert!(honest.acknowledged >= 10 * kills, "too few receipts at stake");
        assert!(honest.torn_before_whole > 0, "the disk lost too little to tell");
    }

    // On a busy machine the first children may be killed before they have called anything durable.
    let is_noticed = [20, 80, 320].into_iter().any(|kills| {
        let planted = kill_often(folder.path(), &library, kills, every, false);
        println!("crash: planted, synchronising does nothing: {planted}");
        planted.lost > 0
    });
    assert!(is_noticed, "a disk that keeps nothing was not noticed");

    let begun = Instant::now();
    let faults = fail_each_call(folder.path(), &library, every);
    println!("crash: {faults}; {:.0} s", begun.elapsed().as_secs_f64());
    assert!(faults.counts.holds() && faults.untyped == 0, "the promise does not hold");
}

/// What was seen.
#[derive(Default)]
struct Counts {
    kills: u64,
    power_failures: u64,
    acknowledged: u64,
    lost: u64,
    torn: u64,
    torn_before_whole: u64,
    corrupt: u64,
    unverifiable: u64,
    not_continued: u64,
    forks: u64,
    unfinished: u64,
    refused: BTreeMap<String, u64>,
}

impl Counts {
    fn holds(&self) -> bool {
        self.lost + self.corrupt + self.unverifiable + self.not_continued + self.forks == 0
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "{} kills ({} with a power failure), {} receipts acknowledged (mean {:.1}), {} lost, \
             {} torn groups ({} with whole frames behind the damage), {} corrupt, {} unverifiable, \
             {} not continued, {} forks; {} runs killed before they had begun, writers refused: {:?}",
            self.kills,
            self.power_failures,
            self.acknowledged,
            self.acknowledged as f64 / self.kills.max(1) as f64,
            self.lost,
            self.torn,
            self.torn_before_whole,
            self.corrupt,
            self.unverifiable,
            self.not_continued,
            self.forks,
            self.unfinished,
            self.refused,
        )
    }
}

/// One run on one disk, and what its writers called durable.
struct Trial {
    _folder: tempfile::TempDir,
    home: PathBuf,
    run: PathBuf,
    disk: Disk,
    acknowledged: BTreeMap<u64, String>,
}

/// How a child is to end.
#[derive(Clone, Copy)]
enum End<'a> {
    Alone,
    Call(&'a str),
    After(Duration),
    Fault(&'a str),
}

/// What a child said, and whether it ended by itself without a panic.
struct Said {
    durable: Vec<(u64, String)>,
    error: Option<String>,
    is_ended: bool,
}

impl Trial {
    fn new(folder: &Path, library: &Path) -> Trial {
        let folder = tempfile::tempdir_in(folder).unwrap();
        let disk = Disk::new(folder.path(), library);
        let home = disk.root.join("home");
        Trial { home, run: disk.root.join("run"), disk, _folder: folder, acknowledged: BTreeMap::new() }
    }

    fn child(
        &self,
        run: &Path,
        seed: u64,
        flushes: u64,
        is_honest: bool,
        end: End<'_>,
    ) -> std::process::Child {
        let mut command = Command::new(std::env::current_exe().unwrap());
        self.disk.hold(&mut command);
        command
            .env(FOLDER, run)
            .env(SEED, seed.to_string())
            .env(FLUSHES, flushes.to_string())
            .env("COUNTERFOIL_HOME", &self.home)
            .env_remove("COUNTERFOIL_KEY")
            .env("DISK_FSYNC", if is_honest { "on" } else { "off" })
            .stdout(Stdio::piped());
        match end {
            End::Call(when) => command.env("DISK_KILL", when),
            End::Fault(what) => command.env("DISK_FAIL", what),
            End::Alone | End::After(_) => &mut command,
        };
        command.spawn().unwrap()
    }

    /// Runs a child to its end.
    fn write(&self, run: &Path, seed: u64, flushes: u64, is_honest: bool, end: End<'_>) -> Said {
        let mut child = self.child(run, seed, flushes, is_honest, end);
        let mut pipe = child.stdout.take().unwrap();
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            pipe.read_to_string(&mut text).map(|_| text)
        });
        if let End::After(time) = end {
            std::thread::sleep(time);
            child.kill().unwrap();
        }
        let text = reader.join().unwrap().unwrap();
        let is_ended = child.wait().unwrap().success();
        let (mut durable, mut error) = (Vec::new(), None);
        // A line that was cut off was not said.
        for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["durable", sequence, fingerprint] => {
                    durable.push((sequence.parse().unwrap(), fingerprint.to_string()));
                }
                ["error", code, ..] => error = Some(code.to_string()),
                _ => panic!("the child said {line:?}"),
            }
        }
        Said { durable, error, is_ended }
    }

    /// Holds a writer to its word: a second receipt of one sequence is a fork.
    fn note(&mut self, said: &Said, counts: &mut Counts) {
        for (sequence, fingerprint) in &said.durable {
            let known = self.acknowledged.entry(*sequence).or_insert_with(|| {
                counts.acknowledged += 1;
                fingerprint.clone()
            });
            counts.forks += u64::from(known != fingerprint);
        }
        if let Some(code) = &said.error {
            *counts.refused.entry(code.clone()).or_default() += 1;
        }
    }

    /// Looks at what is there now; false when the run cannot go on.
    fn judge(&self, counts: &mut Counts, verifies: bool) -> bool {
        let log = match self.log() {
            Ok(log) => log,
            Err(error) => {
                match error {
                    LedgerError::Journal(JournalError::Corrupt { .. }) => counts.corrupt += 1,
                    // The power failed before the run had begun, and nobody was told that it had.
                    _ if self.acknowledged.is_empty() => counts.unfinished += 1,
                    _ => counts.lost += self.acknowledged.len() as u64,
                }
                if !self.acknowledged.is_empty() {
                    println!("crash: {error}");
                }
                return false;
            }
        };
        counts.torn += u64::from(log.dropped_bytes > 0);
        counts.torn_before_whole += u64::from(self.has_whole_frame_behind_damage(&log));
        let found: Vec<String> =
            log.receipts().map(|receipt| fingerprint(&receipt.unwrap()).to_string()).collect();
        let is_lost = |sequence: &u64| found.get(*sequence as usize) != self.acknowledged.get(sequence);
        let lost = self.acknowledged.keys().filter(|sequence| is_lost(sequence)).count() as u64;
        if lost > 0 {
            println!("crash: {lost} lost, {} acknowledged, {} found", self.acknowledged.len(), found.len());
        }
        counts.lost += lost;
        if log.shown() < 2 && self.acknowledged.is_empty() {
            counts.unfinished += 1;
            return false;
        }
        if !verifies {
            return lost == 0;
        }
        let verdict = Record::load(&self.run).unwrap().verify(&Judgement::default(), &unconfirmed);
        if !verdict.integrity.intact {
            println!("crash: {:?}", verdict.integrity.broken);
            counts.unverifiable += 1;
        }
        verdict.integrity.intact
    }

    fn log(&self) -> Result<Log, LedgerError> {
        let folder = RunFolder::open(&self.run)?;
        let Some((worker, lane)) = folder.lanes()?.first().copied() else {
            return Err(LedgerError::NotFound { path: "a lane".into() });
        };
        folder.log(worker, lane)
    }

    /// Whether what was dropped holds a frame that is whole: what used to read as corruption.
    fn has_whole_frame_behind_damage(&self, log: &Log) -> bool {
        let lane = RunFolder::open(&self.run).unwrap().lane(log.worker, log.lane);
        let bytes = std::fs::read(lane.join("journal")).unwrap();
        let dropped = &bytes[bytes.len() - log.dropped_bytes as usize..];
        (0..dropped.len()).any(|at| {
            let Some((head, rest)) = dropped[at..].split_at_checked(16) else { return false };
            let word = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().unwrap());
            let payload = rest.get(..word(0) as usize);
            crc32c::crc32c(&head[..12]) == word(12) && payload.map(crc32c::crc32c) == Some(word(8))
        })
    }
}

/// Kills writers of one run after another. The larger `every`, the sooner they are killed and the
/// fewer times signatures are verified.
fn kill_often(folder: &Path, library: &Path, kills: u64, every: u64, is_honest: bool) -> Counts {
    let mut counts = Counts::default();
    let mut random = Random(7);
    let mut trial = Trial::new(folder, library);
    let mut kills_of_run = 0;
    let mut older: Option<(PathBuf, u64)> = None;
    while counts.kills < kills {
        let calls = random.one_of(&[60, 200 / every]);
        let when = random.one_of(&["before", "half", "after", "fsync", "fsync"]);
        let call = format!("{}:{when}", 1 + random.below(calls));
        let end = match random.below(3) {
            0 => End::After(Duration::from_millis(random.below(40))),
            _ => End::Call(&call),
        };
        let is_new = !trial.run.exists();
        let said = trial.write(&trial.run.clone(), random.next(), FOREVER, is_honest, end);
        trial.note(&said, &mut counts);
        counts.kills += 1;
        kills_of_run += 1;
        if said.is_ended || (said.error.is_some() && !is_new) {
            counts.not_continued += 1;
            println!("crash: a writer ended by itself: {:?}", said.error);
        }
        if random.below(4) > 0 {
            trial.disk.fail_power(&mut random);
            counts.power_failures += 1;
        }
        let goes_on = trial.judge(&mut counts, kills_of_run % every == 0);
        if !is_honest && counts.lost > 0 {
            break;
        }
        if goes_on && random.below(4) == 0 {
            write_twice(&mut trial, &mut random, &mut counts, &mut older);
        }
        if !goes_on || kills_of_run >= KILLS_OF_A_RUN {
            if goes_on {
                let said = trial.write(&trial.run.clone(), random.next(), 3, is_honest, End::Alone);
                trial.note(&said, &mut counts);
                counts.not_continued += u64::from(said.error.is_some());
                trial.judge(&mut counts, true);
            }
            trial = Trial::new(folder, library);
            (kills_of_run, older) = (0, None);
        }
    }
    counts
}

/// An older copy of the run is continued, then two writers open it at once.
fn write_twice(
    trial: &mut Trial,
    random: &mut Random,
    counts: &mut Counts,
    older: &mut Option<(PathBuf, u64)>,
) {
    match older.take() {
        None => {
            // Not on the disk, whose notes speak of files that only its writers change.
            let copy = trial.disk.root.with_file_name("older");
            let _ = std::fs::remove_dir_all(&copy);
            copy_folder(&trial.run, &copy);
            *older = Some((copy, trial.log().unwrap().size()));
        }
        // It lacks receipts that have left the device: whoever writes it would sign others.
        Some((copy, size)) if size < trial.acknowledged.len() as u64 => {
            let said = trial.write(&copy, random.next(), 2, true, End::Alone);
            counts.forks += said.durable.iter().filter(|(sequence, _)| *sequence >= size).count() as u64;
            counts.forks += u64::from(said.error.is_none());
            trial.note(&said, counts);
        }
        Some(_) => {}
    }
    let both: Vec<Said> = std::thread::scope(|scope| {
        let (run, one, other) = (&trial.run, random.next(), random.next());
        let trial = &*trial;
        let writers =
            [one, other].map(|seed| scope.spawn(move || trial.write(run, seed, 4, true, End::Alone)));
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    for said in &both {
        trial.note(said, counts);
    }
    trial.judge(counts, false);
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        match path.is_dir() {
            true => copy_folder(&path, &to.join(name)),
            false => drop(std::fs::copy(&path, to.join(name)).unwrap()),
        }
    }
}

/// What came of failing calls.
#[derive(Default)]
struct Faults {
    counts: Counts,
    faults: u64,
    untyped: u64,
    codes: BTreeSet<String>,
}

impl std::fmt::Display for Faults {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let counts = &self.counts;
        write!(
            formatter,
            "{} calls failed (errors {:?}), {} without a typed error; then {} receipts acknowledged, {} lost, \
             {} corrupt, {} unverifiable, {} not continued, {} forks; {} runs had not begun",
            self.faults,
            self.codes,
            self.untyped,
            counts.acknowledged,
            counts.lost,
            counts.corrupt,
            counts.unverifiable,
            counts.not_continued,
            counts.forks,
            counts.unfinished,
        )
    }
}

/// Fails each call of a short program in three ways; with a larger `every` only some of them.
fn fail_each_call(folder: &Path, library: &Path, every: u64) -> Faults {
    let mut faults = Faults::default();
    let mut random = Random(11);
    for is_continued in [false, true] {
        for how in ["EIO", "ENOSPC", "SHORT"] {
            for call in (1..).step_by(3 * every as usize - 2) {
                let mut trial = Trial::new(folder, library);
                if is_continued {
                    // Leaves an unfinished group, so that calls of the repair fail, too.
                    let killed = End::Call("60:fsync");
                    let said = trial.write(&trial.run.clone(), random.next(), FOREVER, true, killed);
                    trial.note(&said, &mut faults.counts);
                    trial.disk.fail_power(&mut random);
                }
                let what = format!("{call}:{how}");
                let said = trial.write(&trial.run.clone(), call, 4, true, End::Fault(&what));
                trial.note(&said, &mut faults.counts);
                if !trial.disk.has_failed_a_call() {
                    break;
                }
                faults.faults += 1;
                faults.untyped += u64::from(!said.is_ended);
                faults.codes.extend(said.error);
                if call % 2 == 0 {
                    trial.disk.fail_power(&mut random);
                    faults.counts.power_failures += 1;
                }
                if !trial.judge(&mut faults.counts, every == 1) {
                    continue;
                }
                // What the next writer calls durable must not rest on pages that were never written.
                let said = trial.write(&trial.run.clone(), random.next(), 2, true, End::Alone);
                trial.note(&said, &mut faults.counts);
                faults.counts.not_continued += u64::from(said.error.is_some() || !said.is_ended);
                trial.disk.fail_power(&mut random);
                trial.judge(&mut faults.counts, true);
            }
        }
    }
    faults
}
