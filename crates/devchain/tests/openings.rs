//! What the core proves of a step's tensors, the contract opens; its constants are those of the schema table.

mod common;

use alloy_primitives::{Address, B256, Bytes};
use alloy_sol_types::SolError;
use common::{ask, deployed};
use counterfoil::commit::{ChunkOpening, Entry, Opening, State, bytes_root};
use counterfoil::receipt::schema::{HEADER, Kind, Meaning, WordType};
use counterfoil::receipt::{Body, Value};
use counterfoil_devchain::DevChain;
use proptest::prelude::*;

alloy_sol_types::sol!("../../contracts/src/interfaces/IOpenings.sol");

struct Contract {
    chain: DevChain,
    address: Address,
}

impl Contract {
    fn new() -> Contract {
        let (chain, address) = deployed(include_str!("../../../contracts/artifacts/Openings.json"));
        Contract { chain, address }
    }

    fn open(&self, opening: &IOpenings::Opening) -> Result<IOpenings::openReturn, Bytes> {
        let call = IOpenings::openCall { opening: opening.clone() };
        ask(&self.chain, self.address, Address::ZERO, &call)
    }
}

fn step() -> &'static Kind {
    Kind::from_name("step").expect("steps are implemented")
}

/// A step with every number as large as its type allows and `commitment` in `field`.
fn body(field: &'static str, commitment: B256) -> Body {
    let values: Vec<(&str, Value)> = step()
        .all_fields()
        .map(|each| {
            let value = match each.word {
                _ if each.name == "schema" => Value::Unsigned(1),
                WordType::Unsigned(bits) => Value::Unsigned(u64::MAX >> (64 - bits)),
                WordType::Address => Value::Address(Address::repeat_byte(0xff)),
                _ if each.name == field => Value::Digest(commitment),
                _ => Value::Digest(B256::repeat_byte(0xff)),
            };
            (each.name, value)
        })
        .collect();
    Body::new(step(), &values).expect("every value fits")
}

fn data(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|n| (n % 251) as u8).collect()
}

fn state(sizes: &[usize]) -> State {
    let entry = |(n, bytes): (usize, &usize)| {
        let name = format!("layers.{n:03}.weight");
        Entry::dense(&name, "U8", &[*bytes as u64], bytes_root(&data(*bytes))).expect("a dense entry")
    };
    State::new(sizes.iter().enumerate().map(entry).collect()).expect("a state")
}

/// The core's opening of chunk `chunk` of tensor `tensor`, checked by the core, as the contract takes it.
fn prove(
    sizes: &[usize],
    tensor: usize,
    chunk: u64,
    field: &'static str,
    blinds: Option<(B256, B256)>,
) -> (Opening, IOpenings::Opening) {
    let name = format!("layers.{tensor:03}.weight");
    let mut proven =
        state(sizes).prove(&name, blinds.as_ref().map(|(_, key)| key)).expect("the tensor is there");
    proven.chunk = Some(ChunkOpening::new(&data(sizes[tensor]), chunk).expect("the chunk is there"));
    let blind = blinds.map_or(B256::ZERO, |(blind, _)| blind);
    let digest = proven.commitment.digest(&blind);
    proven.verify(&digest, &blind).expect("the core accepts its own");
    let entry = proven.entry.clone().expect("it opens an entry");
    let shown = proven.chunk.clone().expect("it opens a chunk");
    let opening = IOpenings::Opening {
        body: body(field, digest).encode().into(),
        field: step().fields.iter().position(|each| each.name == field).expect("a field") as u8,
        blind,
        count: proven.commitment.count,
        size: proven.commitment.size,
        entry: entry.entry,
        entryIndex: entry.index,
        entryBlind: entry.blind.unwrap_or_default(),
        entryProof: entry.proof,
        chunk: shown.bytes,
        chunkIndex: shown.index,
        chunkProof: shown.proof,
    };
    (proven, opening)
}

const BLINDS: Option<(B256, B256)> = Some((B256::repeat_byte(1), B256::repeat_byte(2)));

/// A type hash, domain, header or field number that is not the schema table's.
#[test]
fn every_state_of_a_step_is_opened_and_no_other_field() {
    let contract = Contract::new();
    let mut states = 0;
    for (index, field) in step().fields.iter().enumerate() {
        let (_, mut opening) = prove(&[3000, 10], 0, 2, "gradients", BLINDS);
        let digest = state(&[3000, 10]).blinded(&BLINDS.unwrap().1).digest(&BLINDS.unwrap().0);
        let body = body(field.name, digest);
        (opening.body, opening.field) = (body.encode().into(), index as u8);
        let answer = contract.open(&opening);
        match field.meaning {
            Meaning::Commitment => {
                let answer = answer.unwrap_or_else(|error| panic!("{}: {error}", field.name));
                assert_eq!(answer.digest, body.digest(), "the digest that is signed");
                assert_eq!(answer.name, Bytes::from("layers.000.weight"));
                states += 1;
            }
            Meaning::Public => {
                let refused = IOpenings::NotState::abi_decode(&answer.err().expect(field.name));
                assert_eq!(refused.expect("the field is named").field, index as u8);
            }
        }
    }
    assert_eq!((states, HEADER.len() + step().fields.len()), (12, 23));
}

/// A border of chunks or entries at which core and contract differ.
#[test]
fn chunks_at_every_border_are_opened() {
    let contract = Contract::new();
    for bytes in [1usize, 1023, 1024, 1025, 2048, 3073, 17 * 1024, 40_000] {
        for (before, after) in [(0, 0), (1, 0), (0, 1), (3, 4), (70, 0)] {
            let sizes = [vec![5; before], vec![bytes], vec![7; after]].concat();
            let last = bytes.div_ceil(1024) as u64 - 1;
            for (chunk, blinds) in [(0, None), (last / 2, BLINDS), (last, None), (last, BLINDS)] {
                let (_, opening) = prove(&sizes, before, chunk, "parameters", blinds);
                contract.open(&opening).unwrap_or_else(|error| panic!("{bytes} bytes, {chunk}: {error}"));
            }
        }
    }
}

/// Entries that the core writes and that have no chunk to show.
#[test]
fn only_dense_entries_are_opened() {
    let contract = Contract::new();
    let (_, honest) = prove(&[100, 10], 0, 0, "gradients", None);
    contract.open(&honest).expect("a dense entry");
    for kind in [1, 2, 4] {
        let mut entry = honest.entry.to_vec();
        entry[20] = kind;
        let opening = IOpenings::Opening { entry: entry.into(), ..honest.clone() };
        let refused = contract.open(&opening).err().expect("it was opened");
        IOpenings::NotDense::abi_decode(&refused).expect("another reason");
    }
}

/// One changed bit that the core refuses and the contract does not.
#[test]
fn changes_that_the_core_refuses_are_refused() {
    let contract = Contract::new();
    proptest!(ProptestConfig::with_cases(256), |(
        part in 0..9, place in any::<usize>(), sizes in prop::collection::vec(1..5000usize, 1..9),
        tensor in any::<usize>(), chunk in any::<u64>(), is_private in any::<bool>(),
    )| {
        let tensor = tensor % sizes.len();
        let chunk = chunk % sizes[tensor].div_ceil(1024) as u64;
        let (mut core, mut opening) =
            prove(&sizes, tensor, chunk, "gradients", BLINDS.filter(|_| is_private));
        let (mut blind, digest) = (opening.blind, core.commitment.digest(&opening.blind));
        let flip = |bytes: &mut [u8]| {
            if let Some(bits) = (bytes.len() * 8).checked_sub(1) {
                bytes[(place % (bits + 1)) / 8] ^= 1 << (place % 8);
            }
        };
        let number = |value: u64| value ^ 1 << (place % 64);
        let entry = core.entry.as_mut().expect("an entry");
        let shown = core.chunk.as_mut().expect("a chunk");
        match part {
            0 => {
                let mut bytes = opening.chunk.to_vec();
                flip(&mut bytes);
                (opening.chunk, shown.bytes) = (bytes.clone().into(), bytes.into());
            }
            1 => {
                let mut bytes = opening.entry.to_vec();
                flip(&mut bytes);
                (opening.entry, entry.entry) = (bytes.clone().into(), bytes.into());
            }
            2 => (opening.chunkIndex, shown.index) = (number(opening.chunkIndex), number(shown.index)),
            3 => (opening.entryIndex, entry.index) = (number(opening.entryIndex), number(entry.index)),
            4 => (opening.count, core.commitment.count) = (number(opening.count), number(opening.count)),
            5 => (opening.size, core.commitment.size) = (number(opening.size), number(opening.size)),
            6 => {
                flip(&mut blind.0);
                opening.blind = blind;
            }
            7 => {
                let Some(sibling) = opening.chunkProof.first_mut() else { return Ok(()) };
                flip(&mut sibling.0);
                shown.proof[0] = *sibling;
            }
            _ => {
                let Some(sibling) = opening.entryProof.last_mut() else { return Ok(()) };
                flip(&mut sibling.0);
                *entry.proof.last_mut().expect("as long") = *sibling;
            }
        }
        prop_assert!(core.verify(&digest, &blind).is_err());
        prop_assert!(contract.open(&opening).is_err());
    });
}
