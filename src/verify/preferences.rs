//! Pairs of answers of which raters preferred one, and the collection that a training run names.
//!
//! A rater's set has no sources; the last one in its log counts. A collection, by the run's owner, names the sets of
//! which it is made, and each of its pairs is one of theirs, to the salt.

use std::collections::{BTreeMap, BTreeSet};

use super::stated::{Named, Place, Stated};
use super::{Evidence, Findings};
use crate::commit::leaf_hash;
use crate::primitives::{Address, Digest};
use crate::receipt::schema::PREFERENCE_SET;

type Roots = BTreeSet<Digest>;

/// Raters' sets by their lanes, each in the order of its log.
type Sets<'a> = BTreeMap<(Address, u32), Vec<&'a Stated>>;

pub(super) fn check(stated: &[Stated], owner: Address, evidence: &Evidence<'_>, findings: &mut Findings) {
    let sets = stated.iter().filter(|said| said.is(PREFERENCE_SET));
    let (collections, signed): (Vec<&Stated>, Vec<&Stated>) =
        sets.partition(|said| said.body.bytes32("sources") != Digest::ZERO);
    let mut raters = Sets::new();
    for set in signed {
        raters.entry(set.by).or_default().push(set);
    }
    let (own, strangers): (Vec<&Stated>, Vec<&Stated>) =
        collections.into_iter().partition(|collection| collection.by.0 == owner);
    if !strangers.is_empty() {
        findings.of_lineage.push(format!(
            "{} collections of preferences by others than the owner do not count",
            strangers.len()
        ));
    }
    for collection in own {
        compare(collection, &raters, evidence, findings);
    }
}

fn compare(collection: &Stated, raters: &Sets<'_>, evidence: &Evidence<'_>, findings: &mut Findings) {
    let place = &collection.place;
    let has_pairs = collection.body.bytes32("pairs") != Digest::ZERO;
    findings.collections += u64::from(has_pairs);
    let (pairs, sources) = (collection.opened("pairs", evidence), collection.opened("sources", evidence));
    let Some((pairs, sources)) = pairs.zip(sources) else {
        findings.of_lineage.push(format!("{place}: what was collected is withheld, and not compared"));
        return;
    };
    let mut collected = Roots::new();
    for pair in pairs.entries() {
        if !collected.insert(pair.root()) {
            findings.broken(format!("{place}: pair {}", pair.name), "each pair once", pair.root());
        }
    }
    let (mut given, mut withdrawn, mut of, mut not_shown) =
        (Roots::new(), Roots::new(), BTreeSet::new(), Vec::new());
    for source in sources.entries() {
        let edge = format!("{place}: sources <- {}", source.name);
        let Some(named) = Place::parse(&source.name) else {
            findings.broken(edge, "<worker>/<lane>/<sequence>", &source.name);
            continue;
        };
        let is_named = |found: &Digest| leaf_hash(&found.0) == source.root();
        match named.named_by(collection.by.0, PREFERENCE_SET, is_named, evidence) {
            Named::Receipt(..) => {}
            Named::NotShown => {
                not_shown.push(&source.name);
                continue;
            }
            Named::Nothing => {
                findings.broken(edge, "a preference set of this run", "another receipt, or none");
                continue;
            }
        }
        let lane = u32::try_from(named.lane).ok().and_then(|lane| raters.get(&(named.worker, lane)));
        let sets = lane.map(Vec::as_slice).unwrap_or_default();
        let Some(set) = sets.iter().find(|set| set.position == named.sequence) else {
            findings.broken(edge, "a rater's preference set", "a collection");
            continue;
        };
        let Some(signed) = roots(set, evidence) else {
            not_shown.push(&source.name);
            continue;
        };
        let own: Roots = signed.intersection(&collected).copied().collect();
        if !own.is_empty() {
            of.insert(named.worker);
        }
        if let Some(last) = sets.last().and_then(|set| roots(set, evidence)) {
            withdrawn.extend(own.difference(&last));
        }
        given.extend(own);
    }
    if let Some(first) = not_shown.first() {
        findings.undecided.push(format!(
            "{place}: of {} raters' sets it is not shown what was signed; the first: {first}",
            not_shown.len()
        ));
    } else {
        for pair in pairs.entries().iter().filter(|pair| !given.contains(&pair.root())) {
            findings.broken(
                format!("{place}: pair {}", pair.name),
                "a pair that a rater signed",
                pair.root(),
            );
        }
    }
    findings.of_lineage.push(format!(
        "{} of {} collected preferences are shown to be those of {} raters, whose last sets lack {} of them",
        given.len(),
        pairs.entries().len(),
        of.len(),
        withdrawn.len(),
    ));
}

/// The pairs of a rater's set; none when they are withheld.
fn roots(set: &Stated, evidence: &Evidence<'_>) -> Option<Roots> {
    if set.body.bytes32("pairs") == Digest::ZERO {
        return Some(Roots::new());
    }
    let pairs = set.opened("pairs", evidence)?;
    Some(pairs.entries().iter().map(|pair| pair.root()).collect())
}
