//! What an optimiser of PyTorch does to one tensor, bit for bit: SGD, Adam and AdamW as torch's loop over CPU tensors
//! and its foreach implementation compute them.
//!
//! The order of operations is torch's. Where one of its kernels multiplies and adds (`add(alpha=)`, `lerp`,
//! `addcmul`), processors with AVX2 round once ([`Kernels::Contracted`]) and the kernels without vectors twice;
//! `addcdiv`, division and `maximum` never contract. Two results follow no rule that every machine shares. The square
//! root of tensors is MKL's, up to one unit in the last place from the nearest number; and `beta ** step` is the C
//! library's power, of which only is known that it is one of the two doubles around the exact value. So Adam's
//! parameter is [compared](After::differing) with what each of these gives. NaNs are equal whatever their bits.

use std::collections::BTreeMap;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// Steps beyond which the power of a beta is not computed.
const MAX_STEP: f64 = 4_294_967_296.0;

/// How kernels multiply and add.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernels {
    /// With one rounding, as the AVX2 and AVX-512 kernels do in vectors and in what is left of them.
    Contracted,
    /// With two, as the kernels without vectors do.
    Plain,
}

/// Types of elements that are computed here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Real {
    /// `F32`.
    Single,
    /// `F64`.
    Double,
}

impl Real {
    /// The type of a dtype's tag; none for the others.
    pub fn of(dtype: &str) -> Option<Real> {
        match dtype {
            "F32" => Some(Real::Single),
            "F64" => Some(Real::Double),
            _ => None,
        }
    }

    /// Elements of two tensors that differ, all of them when their sizes do. NaNs are equal.
    pub fn differing(self, one: &[u8], other: &[u8]) -> u64 {
        match self {
            Real::Single => differing(&decode::<f32>(one), &decode(other), |one| [*one]),
            Real::Double => differing(&decode::<f64>(one), &decode(other), |one| [*one]),
        }
    }

    /// The elements as doubles.
    pub fn doubles(self, bytes: &[u8]) -> Vec<f64> {
        match self {
            Real::Single => decode::<f32>(bytes).into_iter().map(f64::from).collect(),
            Real::Double => decode(bytes),
        }
    }

    fn encode(self, value: f64) -> Vec<u8> {
        match self {
            Real::Single => (value as f32).to_le_bytes().into(),
            Real::Double => value.to_le_bytes().into(),
        }
    }
}

/// An optimiser with the hyperparameters of one of its groups, named as torch names them.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs, reason = "the fields are torch's hyperparameters")]
pub enum Rule {
    /// `torch.optim.SGD`.
    Sgd { lr: f64, momentum: f64, dampening: f64, weight_decay: f64, nesterov: bool, maximize: bool },
    /// `torch.optim.Adam` and, with `decoupled` weight decay, `torch.optim.AdamW`.
    Adam {
        lr: f64,
        betas: [f64; 2],
        eps: f64,
        weight_decay: f64,
        amsgrad: bool,
        maximize: bool,
        decoupled: bool,
    },
}

/// One parameter before a step: canonical bytes of equal length.
#[derive(Clone, Debug)]
pub struct Before<'a> {
    /// The elements of all tensors but the number of steps.
    pub real: Real,
    /// The parameter.
    pub parameter: &'a [u8],
    /// The gradient that is applied.
    pub gradient: &'a [u8],
    /// The optimiser's tensors of the parameter's shape, by torch's keys; empty before the first step.
    pub state: BTreeMap<&'a str, &'a [u8]>,
    /// Adam's number of steps, and as what it is kept.
    pub steps: (Real, f64),
}

/// Why an update is not computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError {
    /// Parameter, gradient and state are no tensors of one length.
    #[error("tensors of different sizes")]
    Sizes,
    /// Some of the optimiser's tensors are there, and another one is not.
    #[error("an incomplete state of the optimiser")]
    State,
    /// A hyperparameter or the number of steps with which torch does not step.
    #[error("hyperparameters or a number of steps outside of what torch takes")]
    Range,
}

/// One parameter after a step.
#[derive(Clone, Debug)]
pub struct After {
    /// The parameter, of all allowed ones that with the nearest powers and square roots.
    pub parameter: Vec<u8>,
    /// Elements of the recorded parameter that no power and square root gives; none without a recorded one.
    pub differing: Option<u64>,
    /// The optimiser's tensors by torch's keys.
    pub state: Vec<(&'static str, Vec<u8>)>,
}

/// Makes one step, and compares its parameter with what was recorded of it.
///
/// # Errors
/// [`UpdateError`] where torch's bits are not known.
pub fn update(
    rule: &Rule,
    kernels: Kernels,
    before: &Before<'_>,
    recorded: Option<&[u8]>,
) -> Result<After, UpdateError> {
    match before.real {
        Real::Single => step::<f32>(rule, kernels, before, recorded),
        Real::Double => step::<f64>(rule, kernels, before, recorded),
    }
}

/// What both types of elements can do.
trait Element:
    Copy
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    const SIZE: usize;
    fn new(value: f64) -> Self;
    fn read(bytes: &[u8]) -> Self;
    fn write(self, bytes: &mut Vec<u8>);
    fn fused(self, factor: Self, summand: Self) -> Self;
    fn root(self) -> [Self; 3];
    fn is_same(self, other: Self) -> bool;
    fn is_unordered(self) -> bool;
}

macro_rules! element {
    ($type:ty) => {
        impl Element for $type {
            const SIZE: usize = size_of::<$type>();

            fn new(value: f64) -> Self {
                value as $type
            }

            fn read(bytes: &[u8]) -> Self {
                <$type>::from_le_bytes(bytes.try_into().expect("an element's bytes"))
            }

            fn write(self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(&self.to_le_bytes());
            }

            fn fused(self, factor: Self, summand: Self) -> Self {
                self.mul_add(factor, summand)
            }

            /// The nearest square root and its neighbours; those of 0 and infinity are exact everywhere.
            fn root(self) -> [Self; 3] {
                let nearest = self.sqrt();
                let is_exact = nearest == 0.0 || !nearest.is_finite();
                if is_exact { [nearest; 3] } else { [nearest, nearest.next_down(), nearest.next_up()] }
            }

            fn is_same(self, other: Self) -> bool {
                self.to_bits() == other.to_bits() || (self.is_nan() && other.is_nan())
            }

            fn is_unordered(self) -> bool {
                self.is_nan()
            }
        }
    };
}
element!(f32);
element!(f64);

fn decode<T: Element>(bytes: &[u8]) -> Vec<T> {
    bytes.chunks_exact(T::SIZE).map(T::read).collect()
}

fn encode<T: Element>(values: impl Iterator<Item = T>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(values.size_hint().0 * T::SIZE);
    values.for_each(|value| value.write(&mut bytes));
    bytes
}

/// Recorded elements that are none of those that an element of `of` gives.
fn differing<T: Element, E, const N: usize>(of: &[E], recorded: &[T], given: impl Fn(&E) -> [T; N]) -> u64 {
    let is_other = |(each, value): &(&E, &T)| !given(each).iter().any(|one| one.is_same(**value));
    let missing = of.len().abs_diff(recorded.len());
    (of.iter().zip(recorded).filter(is_other).count() + missing) as u64
}

/// `summand + factor * value`, as a kernel does it.
fn multiplied_and_added<T: Element>(kernels: Kernels, value: T, factor: T, summand: T) -> T {
    match kernels {
        Kernels::Contracted => value.fused(factor, summand),
        Kernels::Plain => summand + factor * value,
    }
}

/// `torch.lerp` with a number as weight.
fn lerp<T: Element>(kernels: Kernels, from: T, to: T, weight: T) -> T {
    let half = T::new(0.5);
    match weight < half && weight > -half {
        true => multiplied_and_added(kernels, to - from, weight, from),
        false => multiplied_and_added(kernels, -(to - from), T::new(1.0) - weight, to),
    }
}

fn step<T: Element>(
    rule: &Rule,
    kernels: Kernels,
    before: &Before<'_>,
    recorded: Option<&[u8]>,
) -> Result<After, UpdateError> {
    let tensors = before.state.values().chain([&before.gradient]);
    let is_odd = !before.parameter.len().is_multiple_of(T::SIZE);
    if is_odd || tensors.into_iter().any(|tensor| tensor.len() != before.parameter.len()) {
        return Err(UpdateError::Sizes);
    }
    let mut parameter: Vec<T> = decode(before.parameter);
    let mut gradient: Vec<T> = decode(before.gradient);
    let (maximize, weight_decay, decoupled) = match *rule {
        Rule::Sgd { maximize, weight_decay, .. } => (maximize, weight_decay, false),
        Rule::Adam { maximize, weight_decay, decoupled, .. } => (maximize, weight_decay, decoupled),
    };
    if maximize {
        gradient.iter_mut().for_each(|each| *each = -*each);
    }
    if weight_decay != 0.0 && !decoupled {
        for (each, weight) in gradient.iter_mut().zip(&parameter) {
            *each = multiplied_and_added(kernels, *weight, T::new(weight_decay), *each);
        }
    }
    match *rule {
        Rule::Sgd { lr, momentum, dampening, nesterov, .. } => {
            let mut state = Vec::new();
            if momentum != 0.0 {
                let buffer: Vec<T> = match before.state.get("momentum_buffer") {
                    None => gradient.clone(),
                    Some(known) => {
                        let kept = decode::<T>(known).into_iter().map(|each| each * T::new(momentum));
                        let add =
                            |(kept, each)| multiplied_and_added(kernels, each, T::new(1.0 - dampening), kept);
                        kept.zip(gradient.iter().copied()).map(add).collect()
                    }
                };
                for (each, moved) in gradient.iter_mut().zip(&buffer) {
                    *each = match nesterov {
                        true => multiplied_and_added(kernels, *moved, T::new(momentum), *each),
                        false => *moved,
                    };
                }
                state.push(("momentum_buffer", encode(buffer.into_iter())));
            }
            for (weight, each) in parameter.iter_mut().zip(&gradient) {
                *weight = multiplied_and_added(kernels, *each, T::new(-lr), *weight);
            }
            let parameter = encode(parameter.into_iter());
            let differing = recorded.map(|recorded| before.real.differing(&parameter, recorded));
            Ok(After { parameter, differing, state })
        }
        Rule::Adam { lr, betas, eps, amsgrad, .. } => {
            let [first, second] = betas;
            let (counted, steps) = (before.steps.0, before.steps.1 + 1.0);
            // As a tensor of single precision keeps it.
            let steps = if counted == Real::Single { f64::from(steps as f32) } else { steps };
            let is_count = (1.0..=MAX_STEP).contains(&steps) && steps.fract() == 0.0;
            if !is_count || !betas.iter().all(|beta| (0.0..1.0).contains(beta)) {
                return Err(UpdateError::Range);
            }
            if decoupled && weight_decay != 0.0 {
                let kept = T::new(1.0 - lr * weight_decay);
                parameter.iter_mut().for_each(|weight| *weight = *weight * kept);
            }
            let known = |key: &str| match before.state.get(key) {
                Some(bytes) => Ok(decode::<T>(bytes)),
                None if before.state.is_empty() => Ok(vec![T::new(0.0); gradient.len()]),
                None => Err(UpdateError::State),
            };
            let (mut mean, mut square) = (known("exp_avg")?, known("exp_avg_sq")?);
            for (each, gradient) in mean.iter_mut().zip(&gradient) {
                *each = lerp(kernels, *each, *gradient, T::new(1.0 - first));
            }
            for (each, gradient) in square.iter_mut().zip(&gradient) {
                let scaled = T::new(1.0 - second) * *gradient;
                *each = multiplied_and_added(kernels, scaled, *gradient, *each * T::new(second));
            }
            let mut state = vec![
                ("step", counted.encode(steps)),
                ("exp_avg", encode(mean.iter().copied())),
                ("exp_avg_sq", encode(square.iter().copied())),
            ];
            if amsgrad {
                let largest = known("max_exp_avg_sq")?;
                for (each, before) in square.iter_mut().zip(largest) {
                    *each = if before > *each || before.is_unordered() { before } else { *each };
                }
                state.push(("max_exp_avg_sq", encode(square.iter().copied())));
            }
            let elements: Vec<(T, T, T)> = parameter
                .into_iter()
                .zip(mean)
                .zip(square)
                .map(|((weight, mean), square)| (weight, mean, square))
                .collect();
            let moved = |size: T, correction: T| {
                move |(weight, mean, square): &(T, T, T)| {
                    let divided = |root: T| *weight + size * *mean / (root / correction + T::new(eps));
                    square.root().map(divided)
                }
            };
            let (sizes, corrections) = (step_sizes::<T>(lr, first, steps)?, corrections::<T>(second, steps));
            let nearest = moved(sizes[0], corrections[0]);
            let parameter = encode(elements.iter().map(|each| nearest(each)[0]));
            let differing = recorded.and_then(|recorded| {
                let recorded = decode::<T>(recorded);
                let powers = sizes.iter().flat_map(|size| corrections.iter().map(|each| (*size, *each)));
                powers.map(|(size, each)| differing(&elements, &recorded, moved(size, each))).min()
            });
            Ok(After { parameter, differing, state })
        }
    }
}

/// `-lr / (1 - beta1 ** step)`, by each power.
fn step_sizes<T: Element>(lr: f64, beta: f64, steps: f64) -> Result<Vec<T>, UpdateError> {
    let corrections = powers(beta, steps as u64).into_iter().map(|power| 1.0 - power);
    let sizes: Vec<T> = corrections.filter(|each| *each != 0.0).map(|each| T::new(-(lr / each))).collect();
    if sizes.is_empty() { Err(UpdateError::Range) } else { Ok(distinct(sizes)) }
}

/// `(1 - beta2 ** step) ** 0.5`, by each power.
fn corrections<T: Element>(beta: f64, steps: f64) -> Vec<T> {
    let roots = powers(beta, steps as u64).into_iter().flat_map(|power| {
        let (square, root) = (1.0 - power, (1.0 - power).sqrt());
        around(root, (-root).mul_add(root, square))
    });
    distinct(roots.map(T::new).collect())
}

fn distinct<T: Element>(values: Vec<T>) -> Vec<T> {
    let mut found: Vec<T> = Vec::new();
    for value in values {
        if !found.iter().any(|known| known.is_same(value)) {
            found.push(value);
        }
    }
    found
}

/// The doubles on both sides of an exact value, the nearest first.
fn around(nearest: f64, rest: f64) -> Vec<f64> {
    match rest {
        _ if rest > 0.0 => vec![nearest, nearest.next_up()],
        _ if rest < 0.0 => vec![nearest, nearest.next_down()],
        _ => vec![nearest],
    }
}

/// The doubles on both sides of a power, from squares that are kept as sums of two doubles.
fn powers(base: f64, mut exponent: u64) -> Vec<f64> {
    let times = |(one, rest): (f64, f64), (other, more): (f64, f64)| {
        let product = one * other;
        let error = one.mul_add(other, -product) + (one * more + rest * other);
        let sum = product + error;
        (sum, error - (sum - product))
    };
    let (mut power, mut square) = ((1.0, 0.0), (base, 0.0));
    while exponent > 0 {
        if exponent & 1 == 1 {
            power = times(power, square);
        }
        square = times(square, square);
        exponent >>= 1;
    }
    around(power.0, power.1)
}
