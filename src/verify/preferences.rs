//! Pairs of answers of which raters preferred one, and the collection that a training run names.
//!
//! A rater's set has no sources; the last one in its log counts. A collection, by the run's owner, names the sets of
//! which it is made, and each of its pairs is one of theirs, to the salt.

use std::collections::BTreeSet;

use super::stated::{Named, Place, Stated};
use super::{Evidence, Findings};
use crate::commit::{State, leaf_hash};
use crate::primitives::{Address, Digest};
use crate::receipt::schema::PREFERENCE_SET;

pub(super) fn check(stated: &[Stated], owner: Address, evidence: &Evidence<'_>, findings: &mut Findings) {
    let sets = || stated.iter().filter(|said| said.is(PREFERENCE_SET));
    let is_collection = |said: &&Stated| said.body.bytes32("sources") != Digest::ZERO;
    let strangers = sets().filter(is_collection).filter(|collection| collection.by.0 != owner).count();
    if strangers > 0 {
        findings
            .of_lineage
            .push(format!("{strangers} collections of preferences by others than the owner do not count"));
    }
    for collection in sets().filter(is_collection).filter(|collection| collection.by.0 == owner) {
        findings.collections += 1;
        let place = &collection.place;
        let (pairs, sources) = (collection.opened("pairs", evidence), collection.opened("sources", evidence));
        let Some((pairs, sources)) = pairs.zip(sources) else {
            findings.of_lineage.push(format!("{place}: what was collected is withheld, and not compared"));
            continue;
        };
        let (mut given, mut kept, mut is_known) = (BTreeSet::new(), BTreeSet::new(), true);
        let mut raters = BTreeSet::new();
        for source in sources.entries() {
            let edge = format!("{place}: sources <- {}", source.name);
            let Some(of) = Place::parse(&source.name) else {
                findings.broken(edge, "<worker>/<lane>/<sequence>", &source.name);
                continue;
            };
            raters.insert(of.worker);
            let is_named = |found: &Digest| leaf_hash(&found.0) == source.root();
            let has_log = evidence.logs.iter().any(|log| of.is_in(log));
            let named = of.find(PREFERENCE_SET, is_named, evidence);
            if matches!(named, Named::Nothing) && has_log {
                findings.broken(edge, "a preference set of this run", "another receipt, or none");
                continue;
            }
            let own = || sets().filter(|said| of.is_of(said.by) && !is_collection(said));
            let Some(set) = own().find(|said| said.position == of.sequence) else {
                if let Named::Receipt(..) = named {
                    findings.broken(edge, "a rater's preference set", "a collection");
                } else {
                    findings.undecided.push(format!("{edge}: not shown"));
                    is_known = false;
                }
                continue;
            };
            let signed = set.opened("pairs", evidence);
            is_known &= signed.is_some() || set.body.bytes32("pairs") == Digest::ZERO;
            given.extend(roots(signed));
            let last = own().max_by_key(|said| said.position);
            kept.extend(roots(last.and_then(|said| said.opened("pairs", evidence))));
        }
        let mut seen = BTreeSet::new();
        for pair in pairs.entries() {
            let edge = format!("{place}: pair {}", pair.name);
            if !seen.insert(pair.root()) {
                findings.broken(edge, "each pair once", pair.root());
            } else if is_known && !given.contains(&pair.root()) {
                findings.broken(edge, "a pair that a rater signed", pair.root());
            }
        }
        let withdrawn = seen.iter().filter(|root| given.contains(*root) && !kept.contains(*root)).count();
        findings.of_lineage.push(format!(
            "{} preferences of {} raters were collected; {withdrawn} of them were withdrawn by their raters since",
            seen.len(),
            raters.len(),
        ));
    }
}

fn roots(pairs: Option<State>) -> Vec<Digest> {
    pairs.iter().flat_map(State::entries).map(|pair| pair.root()).collect()
}
