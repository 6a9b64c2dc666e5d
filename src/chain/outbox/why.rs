//! Why a submission does not move, and what to do about it.

use super::{Note, Outbox, Outcome, Rule, Submission};
use crate::chain::Network;

impl Outbox {
    /// One line on where a submission stands, and on what to do if it waits for the user.
    pub fn why(&self, number: usize) -> String {
        match self.submissions.get(number).zip(self.notes.get(number)) {
            Some((submission, note)) => {
                let reason = match self.keeps(Rule::Why) {
                    true => explain(submission, note, self.client.network()),
                    false => submission.state(),
                };
                format!("{}: {reason}", submission.task)
            }
            None => format!("there is no submission {number}"),
        }
    }

    /// The first submission that waits for the user.
    pub fn paused(&self) -> Option<usize> {
        self.open_numbers().find(|number| self.notes[*number].advice.is_some())
    }
}

impl Submission {
    /// Where it stands, by the journal alone.
    pub fn state(&self) -> String {
        match (&self.outcome, &self.mined, self.in_flight().last()) {
            (Some(Outcome::Final(Some(mined))), ..) => {
                format!("final in block {}, transaction {}", mined.block_number, mined.transaction)
            }
            (Some(Outcome::Final(None)), ..) => "the chain had it already".into(),
            (Some(Outcome::Superseded), ..) => "a larger anchor of the same log stands for it".into(),
            (Some(Outcome::Failed(reason)), ..) => format!("failed: {reason}"),
            (None, Some(mined), _) => format!("in block {}, not final yet", mined.block_number),
            (None, None, Some(last)) => format!("signed and sent, transaction {}", last.hash),
            (None, None, None) => "written down, not signed yet".into(),
        }
    }
}

fn explain(submission: &Submission, note: &Note, network: &Network) -> String {
    let unstored =
        note.unstored.as_ref().map(|error| format!("; the run folder did not take its record: {error}"));
    let unstored = unstored.unwrap_or_default();
    match (&submission.outcome, &note.advice) {
        (Some(Outcome::Final(Some(mined))), _) => {
            let link = network.explorer.as_deref().unwrap_or_default();
            let (block, title, hash) = (mined.block_number, &network.title, mined.transaction);
            format!("final in block {block} of {title}, {link}{hash}{unstored}")
        }
        (Some(Outcome::Final(None)), _) => format!("{} had it already{unstored}", network.title),
        (Some(Outcome::Superseded | Outcome::Failed(_)), _) => submission.state(),
        (None, Some(advice)) => {
            format!("{}; {advice}, then: counterfoil chain resume {}", note.detail, network.options())
        }
        (None, None) if note.detail.is_empty() => "written down, waits for those before it".into(),
        (None, None) => note.detail.clone(),
    }
}
