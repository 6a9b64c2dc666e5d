//! Steps whose update is executed again: from the checkpoint before them, their stored gradients and the
//! hyperparameters that they recorded, without model, recipe or torch.
//!
//! Only steps whose receipt says that it goes on from the checkpoint are executed, so that nothing else that a
//! program does to its weights between two steps is taken for an update. What cannot be executed is counted by
//! reason and refutes nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::openings::States;
use super::policy::{FALLBACK, SKIPPED};
use super::prepared::Prepared;
use super::{Evidence, Findings};
use crate::commit::{Content, Entry, State, bytes_root};
use crate::receipt::Body;
use crate::receipt::schema;
use crate::update::{Before, Kernels, Real, Rule, update};

/// The entry of a step's extensions which says that its gradients are stored, and that the state before it is, byte
/// for byte, the one of the last checkpoint.
pub const FROM_CHECKPOINT: &str = "from_checkpoint";

/// The minor versions of PyTorch 2 whose bits are known: compared with the first and the last of them.
const VERSIONS: std::ops::RangeInclusive<u32> = 9..=15;

/// Names and values of a state that was opened by value.
type Values = BTreeMap<String, (&'static str, Vec<u8>)>;

/// What is known between two receipts of a log.
#[derive(Default)]
pub(super) struct Updates {
    checkpoint: Option<Checkpoint>,
    /// A step whose state afterwards may stand in the checkpoint behind it.
    pending: Option<Step>,
}

struct Checkpoint {
    step: u64,
    states: States,
    environment: Values,
}

struct Step {
    place: String,
    step: u64,
    flags: u64,
    before: Checkpoint,
    opened: States,
    hyperparameters: Values,
}

/// Whether a step says that it goes on from the checkpoint before it.
pub(super) fn is_from_checkpoint(opened: &[(&'static str, State)]) -> bool {
    find(opened, "extensions").is_some_and(|state| entry(state, FROM_CHECKPOINT).is_some())
}

impl Updates {
    /// Takes a receipt of which the states were opened.
    pub(super) fn receipt(
        &mut self,
        body: &Body,
        prepared: &Prepared,
        opened: &States,
        place: &str,
        evidence: &Evidence<'_>,
        findings: &mut Findings,
    ) {
        match body.kind().number {
            schema::STEP => {
                self.finish(evidence, findings);
                let step = body.unsigned("step");
                let checkpoint =
                    self.checkpoint.take().filter(|known| known.step.checked_add(1) == Some(step));
                if let Some(before) = checkpoint.filter(|_| is_from_checkpoint(opened)) {
                    self.pending = Some(Step {
                        place: place.into(),
                        step,
                        flags: body.unsigned("flags"),
                        before,
                        opened: opened.clone(),
                        hyperparameters: values(body, prepared, "hyperparameters"),
                    });
                }
            }
            schema::CHECKPOINT => {
                let step = body.unsigned("step");
                if let Some(pending) = self.pending.as_mut().filter(|pending| pending.step == step) {
                    let shown = opened.iter().filter(|(name, _)| find(&pending.opened, name).is_none());
                    let shown: States = shown.cloned().collect();
                    pending.opened.extend(shown);
                }
                self.finish(evidence, findings);
                let environment = values(body, prepared, "environment");
                self.checkpoint = Some(Checkpoint { step, states: opened.clone(), environment });
            }
            schema::RESUME => self.interrupt(evidence, findings),
            _ => {}
        }
    }

    /// Nothing that follows goes on from what was here.
    pub(super) fn interrupt(&mut self, evidence: &Evidence<'_>, findings: &mut Findings) {
        self.finish(evidence, findings);
        self.checkpoint = None;
    }

    fn finish(&mut self, evidence: &Evidence<'_>, findings: &mut Findings) {
        let Some(step) = self.pending.take() else { return };
        // What the step itself breaks, which tells whether it counts.
        let (mut own, mut reasons) = (Findings::default(), BTreeSet::new());
        match step.setting() {
            _ if step.flags & SKIPPED != 0 => step.skipped(findings),
            Err(reason) => _ = reasons.insert(reason),
            Ok(setting) => {
                step.execute(&setting, evidence, &mut reasons, &mut own);
                findings.updated += u64::from(reasons.is_empty() && own.broken.is_empty());
            }
        }
        for reason in reasons {
            *findings.not_updated.entry(reason).or_default() += 1;
        }
        own.broken.into_iter().for_each(|edge| findings.broken(edge.edge, edge.expected, edge.actual));
    }
}

/// How the update of a step is computed.
struct Setting<'a> {
    kernels: Kernels,
    /// What counts the steps where nothing does yet.
    counter: Real,
    rules: BTreeMap<&'a str, Rule>,
    /// The groups of the parameters whose optimiser has a state.
    groups: BTreeMap<&'a str, &'a str>,
    parameters: &'a State,
    optimizer: &'a State,
    gradients: &'a State,
}

impl Step {
    /// A skipped step leaves everything as it was.
    fn skipped(&self, findings: &mut Findings) {
        for name in ["parameters", "optimizer"] {
            let Some((before, after)) = find(&self.before.states, name).zip(find(&self.opened, name)) else {
                continue;
            };
            for tensor in before.entries() {
                self.unchanged(name, tensor, after, findings);
            }
        }
    }

    /// Names a tensor that is another one after the step, though the step did not concern it.
    fn unchanged(&self, field: &str, before: &Entry, after: &State, findings: &mut Findings) {
        let shown = entry(after, &before.name).filter(|after| before.is_dense() && after.is_dense());
        if let Some(after) = shown.filter(|after| *after != before) {
            let place = self.place_of(field, &before.name);
            findings.broken(place, format!("{}, as before the step", before.root()), after.root());
        }
    }

    fn place_of(&self, field: &str, name: &str) -> String {
        format!("{}: update of {field} '{name}'", self.place)
    }

    /// What the update is computed with, or why it is not.
    fn setting(&self) -> Result<Setting<'_>, &'static str> {
        let states = &self.before.states;
        let shown = find(states, "parameters").zip(find(states, "optimizer"));
        let (parameters, optimizer) = shown.ok_or("the state before is not opened")?;
        let gradients = find(&self.opened, "gradients").ok_or("the gradients are not opened")?;
        if find(&self.opened, "parameters").is_none() {
            return Err("the parameters after the step are not opened");
        }
        if self.before.environment.is_empty() {
            return Err("the environment is not opened");
        }
        let text = |name: &str| {
            let (_, bytes) = self.before.environment.get(name).filter(|(dtype, _)| *dtype == "U8")?;
            std::str::from_utf8(bytes).ok()
        };
        if self.before.environment.contains_key("accelerator") || self.flags & FALLBACK != 0 {
            return Err("the tensors were not on a CPU");
        }
        let version = text("torch").and_then(|version| version.strip_prefix("2.")?.split('.').next());
        let is_known =
            version.and_then(|minor| minor.parse().ok()).is_some_and(|minor| VERSIONS.contains(&minor))
                && text("platform") == Some("Linux x86_64")
                && flag(&self.before.environment, "flush_denormal") == Some(false);
        let contracted = self.before.environment.get("contracted").filter(|_| is_known);
        let kernels = match contracted.map(|(dtype, bytes)| (*dtype, bytes.as_slice())) {
            Some(("BOOL", [1])) => Kernels::Contracted,
            Some(("BOOL", [0])) => Kernels::Plain,
            _ => return Err("the bits of that machine or version of torch are not known"),
        };
        let counter = match text("default_dtype") {
            Some("torch.float64") => Real::Double,
            _ => Real::Single,
        };
        if self.hyperparameters.is_empty() {
            return Err("the hyperparameters are not opened by value");
        }
        let is_adam = match text("optimizer") {
            Some("torch.optim.sgd.SGD") => false,
            Some("torch.optim.adam.Adam" | "torch.optim.adamw.AdamW") => true,
            _ => return Err("the optimiser is not one of SGD, Adam and AdamW of torch"),
        };
        let numbers = self.hyperparameters.keys().filter_map(|name| name.strip_suffix("/lr"));
        let rules = numbers.map(|group| Ok((group, rule(&self.hyperparameters, group, is_adam)?)));
        let rules: BTreeMap<_, _> = rules.collect::<Result<_, &'static str>>()?;
        if rules.is_empty() {
            return Err("the hyperparameters are no numbers");
        }
        let after = find(&self.opened, "optimizer").map_or(&[][..], State::entries);
        let slots = optimizer.entries().iter().chain(after).filter_map(slot);
        let groups = slots.map(|(group, parameter)| (parameter, group));
        Ok(Setting { kernels, counter, rules, groups: groups.collect(), parameters, optimizer, gradients })
    }

    fn execute(
        &self,
        setting: &Setting<'_>,
        evidence: &Evidence<'_>,
        reasons: &mut BTreeSet<&'static str>,
        findings: &mut Findings,
    ) {
        for before in setting.parameters.entries() {
            let outcome = match &before.content {
                // What it stands for has a row of its own.
                Content::Alias { .. } | Content::Absent => Ok(()),
                Content::Sharded { .. } => Err("a tensor is in blocks"),
                Content::Dense { .. } => self.parameter(setting, before, evidence, findings),
            };
            reasons.extend(outcome.err());
        }
    }

    /// Executes the update of one parameter.
    fn parameter(
        &self,
        setting: &Setting<'_>,
        before: &Entry,
        evidence: &Evidence<'_>,
        findings: &mut Findings,
    ) -> Result<(), &'static str> {
        let parameters =
            find(&self.opened, "parameters").ok_or("the parameters after the step are not opened")?;
        let after = entry(parameters, &before.name).ok_or("a parameter is not there after the step")?;
        let optimizer = find(&self.opened, "optimizer");
        let group = match setting.groups.get(before.name.as_str()) {
            Some(group) => Some(*group),
            None if setting.rules.len() == 1 => setting.rules.keys().next().copied(),
            None => None,
        };
        let prefix = format!("optimizer/{}/{}/", group.unwrap_or_default(), before.name);
        let gradient = entry(setting.gradients, &before.name).ok_or("a gradient is sparse or not named")?;
        match gradient.content {
            Content::Dense { .. } => {}
            Content::Absent => {
                self.unchanged("parameters", before, parameters, findings);
                let held = setting.optimizer.entries();
                let held = &held[held.partition_point(|tensor| tensor.name < prefix)..];
                for tensor in held.iter().take_while(|tensor| tensor.name.starts_with(&prefix)) {
                    optimizer.iter().for_each(|after| self.unchanged("optimizer", tensor, after, findings));
                }
                return Ok(());
            }
            _ => return Err("a gradient is in blocks, or another one's"),
        }
        let rule = group.and_then(|group| setting.rules.get(group));
        let rule = rule.ok_or("which of several groups a parameter is in is not known")?;
        let real = before.measured().and_then(|(dtype, _)| Real::of(dtype));
        let real = real.ok_or("a parameter is neither F32 nor F64")?;
        if [after, gradient].iter().any(|tensor| tensor.measured() != before.measured() || !tensor.is_dense())
        {
            return Err("parameter and gradient have different dtypes or shapes");
        }
        let read =
            |tensor: &Entry| (evidence.object)(tensor).filter(|bytes| bytes.len() as u64 == tensor.size());
        let needed = |tensor: &Entry| read(tensor).ok_or("the state before or a gradient is not stored");
        let (mut tensors, mut steps) = (Vec::new(), (setting.counter, 0.0));
        for key in keys(rule) {
            let held = entry(setting.optimizer, &format!("{prefix}{key}"));
            let Some(held) = held.filter(|held| !matches!(held.content, Content::Absent)) else { continue };
            if *key == "step" {
                let real = held.measured().filter(|(_, shape)| shape.is_empty());
                let real = real.and_then(|(dtype, _)| Real::of(dtype));
                let real = real.ok_or("the number of steps is no number")?;
                steps = (real, real.doubles(&needed(held)?).first().copied().unwrap_or(f64::NAN));
            } else if held.measured() != before.measured() || !held.is_dense() {
                return Err("the optimiser's state has another dtype or shape than its parameter");
            } else {
                tensors.push((*key, needed(held)?));
            }
        }
        let (parameter, gradient) = (needed(before)?, needed(gradient)?);
        let state = tensors.iter().map(|(key, bytes)| (*key, bytes.as_slice())).collect();
        let from = Before { real, parameter: &parameter, gradient: &gradient, state, steps };
        // Only SGD's has one value everywhere, so that its root tells.
        let recorded = matches!(rule, Rule::Adam { .. }).then(|| read(after)).flatten();
        let made = update(rule, setting.kernels, &from, recorded.as_deref())
            .map_err(|_| "state or hyperparameters with which torch makes no step")?;
        for (key, expected) in &made.state {
            let name = format!("{prefix}{key}");
            let Some(optimizer) = optimizer else { break };
            let place = self.place_of("optimizer", &name);
            let Some(after) = entry(optimizer, &name) else {
                findings.broken(place, bytes_root(expected), "no such tensor");
                continue;
            };
            let root = bytes_root(expected);
            if root != after.root() && differs(real, expected, after, &read)? {
                findings.broken(place, root, after.root());
            }
        }
        let root = bytes_root(&made.parameter);
        let is_other = root != after.root()
            && match (rule, made.differing) {
                (Rule::Sgd { .. }, _) => differs(real, &made.parameter, after, &read)?,
                (Rule::Adam { .. }, Some(differing)) => differing > 0,
                (Rule::Adam { .. }, None) => {
                    return Err(
                        "the parameters after a step of Adam are not stored, and their roots depend on the \
                                machine's square root",
                    );
                }
            };
        if is_other {
            let cause = read(after).map(|recorded| {
                let differing = made.differing.unwrap_or_else(|| real.differing(&made.parameter, &recorded));
                let [before, expected, recorded] =
                    [&parameter, &made.parameter, &recorded].map(|bytes| real.doubles(bytes));
                format!(" ({})", cause(&before, &expected, &recorded, differing))
            });
            let place = self.place_of("parameters", &before.name);
            findings.broken(place, root, format!("{}{}", after.root(), cause.unwrap_or_default()));
        }
        Ok(())
    }
}

/// Whether a tensor with another root than the expected one is another one: NaNs have many bits.
fn differs(
    real: Real,
    expected: &[u8],
    after: &Entry,
    read: &impl Fn(&Entry) -> Option<Vec<u8>>,
) -> Result<bool, &'static str> {
    if !real.doubles(expected).iter().any(|each| each.is_nan()) || expected.len() as u64 != after.size() {
        return Ok(true);
    }
    let recorded = read(after).ok_or("NaNs, whose bits only a stored tensor tells")?;
    Ok(real.differing(expected, &recorded) > 0)
}

/// What was done instead, in words.
fn cause(before: &[f64], expected: &[f64], recorded: &[f64], differing: u64) -> String {
    let moved = |to: &[f64]| to.iter().zip(before).map(|(to, from)| to - from).collect::<Vec<f64>>();
    let (expected, applied) = (moved(expected), moved(recorded));
    let product = |one: &[f64], other: &[f64]| one.iter().zip(other).map(|(a, b)| a * b).sum::<f64>();
    let ratio = product(&applied, &expected) / product(&expected, &expected);
    let rest: Vec<f64> = expected.iter().zip(&applied).map(|(one, other)| other - one * ratio).collect();
    // What is left besides the factor must be a fifth of what the factor explains.
    let is_multiple = product(&rest, &rest) < 0.04 * (ratio - 1.0).powi(2) * product(&expected, &expected);
    let times = format!("{ratio:.4}");
    match is_multiple && times != "1.0000" {
        _ if applied.iter().all(|each| *each == 0.0) => "the step was not applied".into(),
        true => format!("the applied update is {times} times the one of the recorded hyperparameters"),
        false => format!("{differing} of {} elements differ", expected.len()),
    }
}

/// The optimiser's tensors that a step reads.
fn keys(rule: &Rule) -> &'static [&'static str] {
    match rule {
        Rule::Sgd { momentum, .. } if *momentum == 0.0 => &[],
        Rule::Sgd { .. } => &["momentum_buffer"],
        Rule::Adam { amsgrad: false, .. } => &["step", "exp_avg", "exp_avg_sq"],
        Rule::Adam { .. } => &["step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"],
    }
}

/// The optimiser of one group.
fn rule(hyperparameters: &Values, group: &str, is_adam: bool) -> Result<Rule, &'static str> {
    let number = |key: &str| {
        let found = number(hyperparameters, &format!("{group}/{key}"));
        found.ok_or("a hyperparameter is no plain number")
    };
    let flag = |key: &str| {
        flag(hyperparameters, &format!("{group}/{key}")).ok_or("a hyperparameter is no plain number")
    };
    if ["fused", "capturable", "differentiable"].into_iter().any(|key| flag(key) != Ok(false)) {
        return Err("a group is fused, capturable or differentiable");
    }
    let (lr, weight_decay, maximize) = (number("lr")?, number("weight_decay")?, flag("maximize")?);
    Ok(match is_adam {
        false => Rule::Sgd {
            lr,
            momentum: number("momentum")?,
            dampening: number("dampening")?,
            weight_decay,
            nesterov: flag("nesterov")?,
            maximize,
        },
        true => Rule::Adam {
            lr,
            betas: [number("betas/0")?, number("betas/1")?],
            eps: number("eps")?,
            weight_decay,
            amsgrad: flag("amsgrad")?,
            maximize,
            decoupled: flag("decoupled_weight_decay")?,
        },
    })
}

/// A Python number.
fn number(values: &Values, name: &str) -> Option<f64> {
    let (dtype, bytes) = values.get(name)?;
    match *dtype {
        "F64" => Some(f64::from_le_bytes(bytes.as_slice().try_into().ok()?)),
        "I64" => Some(i64::from_le_bytes(bytes.as_slice().try_into().ok()?) as f64),
        _ => None,
    }
}

/// A Python bool; one that is None or not there is false.
fn flag(values: &Values, name: &str) -> Option<bool> {
    match values.get(name) {
        None => Some(false),
        Some(("BOOL", bytes)) => Some(bytes.as_slice() == [1]),
        Some(_) => None,
    }
}

/// The values of a field that was opened by value; empty where it was not.
fn values(body: &Body, prepared: &Prepared, name: &str) -> Values {
    let index = body.kind().fields.iter().position(|field| field.name == name);
    let opened = prepared.opened.iter().find(|(at, _)| Some(usize::from(*at)) == index);
    let Some((state, values)) = opened.and_then(|(_, opened)| {
        let opened = opened.as_ref().ok()?;
        Some((&opened.state, opened.values.as_ref()?))
    }) else {
        return Values::new();
    };
    let dense = state.entries().iter().filter(|entry| entry.is_dense());
    let named = dense
        .zip(values)
        .filter_map(|(entry, value)| Some((entry.name.clone(), (entry.measured()?.0, value.clone()))));
    named.collect()
}

/// Group and parameter of an entry of the optimiser's state, `optimizer/<group>/<parameter>/<key>`.
fn slot(entry: &Entry) -> Option<(&str, &str)> {
    let (group, rest) = entry.name.strip_prefix("optimizer/")?.split_once('/')?;
    Some((group, rest.rsplit_once('/')?.0))
}

fn find<'a>(states: &'a [(&'static str, State)], name: &str) -> Option<&'a State> {
    states.iter().find(|(known, _)| *known == name).map(|(_, state)| state)
}

fn entry<'a>(state: &'a State, name: &str) -> Option<&'a Entry> {
    let entries = state.entries();
    entries.binary_search_by(|entry| entry.name.as_str().cmp(name)).ok().map(|at| &entries[at])
}
