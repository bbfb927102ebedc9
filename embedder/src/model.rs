//! Token ids to vectors: all-MiniLM-L6-v2 with 8-bit weights, run by `rten`. The weights are compiled in and used where
//! they lie in the binary, so they cost memory only as far as they are touched. `model/make.py` makes them.

use std::sync::Arc;

use rten::{Model as Graph, ModelOptions, NodeId, RunOptions, ThreadPool};
use rten_tensor::NdTensor;
use rten_tensor::prelude::*;

use crate::{DIMENSIONS, Error};

const HEADS: i32 = 12;
const HEAD_DIMENSIONS: i32 = 32;
const PAD: i32 = 0;

pub(crate) struct Model {
    graph: Graph,
    ids: NodeId,
    positions: NodeId,
    mask: NodeId,
    heads: NodeId,
    hidden: NodeId,
}

impl Model {
    pub(crate) fn new() -> Result<Self, Error> {
        let graph = ModelOptions::with_all_ops()
            // A copy of the matrices (11 MB) in the order in which they are read: short texts take half the time.
            .prepack_weights(true)
            .external_data_static("graph.onnx.data", rten::include_external_data!("../model/graph.onnx.data"))
            .load_static_slice(include_bytes!("../model/graph.onnx"))
            .map_err(|error| Error::Model(error.to_string()))?;
        let node = |name| graph.node_id(name).map_err(|error| Error::Model(error.to_string()));
        let (ids, positions, mask, heads, hidden) =
            (node("ids")?, node("positions")?, node("mask")?, node("heads")?, node("hidden")?);
        Ok(Self { graph, ids, positions, mask, heads, hidden })
    }

    /// One vector of [`DIMENSIONS`] for each text, given as ids. Shorter texts are padded to the longest, so give
    /// texts of like length. No text may be empty or longer than [`TOKENS_MAX`](crate::TOKENS_MAX).
    pub(crate) fn embed(&self, texts: &[&[i32]], threads: &Arc<ThreadPool>) -> Result<Vec<Vec<f32>>, Error> {
        let length = texts.iter().map(|text| text.len()).max().unwrap_or(0);
        let padded = |pad: i32, id: fn(usize, i32) -> i32| {
            texts.iter().flat_map(move |text| {
                let tokens = text.iter().enumerate().map(move |(position, &token)| id(position, token));
                tokens.chain(std::iter::repeat_n(pad, length - text.len()))
            })
        };
        #[expect(clippy::cast_possible_wrap, clippy::cast_possible_truncation, reason = "at most 256")]
        let position = |position: usize, _| position as i32;
        let rows = texts.len() * length;
        let ids = NdTensor::from_data([rows], padded(PAD, |_, token| token).collect::<Vec<_>>());
        let positions = NdTensor::from_data([rows], padded(0, position).collect::<Vec<_>>());
        let mask = NdTensor::from_data([texts.len(), length], padded(0, |_, _| 1).collect::<Vec<_>>());
        let shape = |size: usize| i32::try_from(size).map_err(|error| Error::Model(error.to_string()));
        let heads = NdTensor::from([shape(texts.len())?, shape(length)?, HEADS, 3, HEAD_DIMENSIONS]);

        let inputs = vec![
            (self.ids, ids.into()),
            (self.positions, positions.into()),
            (self.mask, mask.into()),
            (self.heads, heads.into()),
        ];
        let options = RunOptions::default().with_thread_pool(Some(Arc::clone(threads)));
        let [hidden] = self
            .graph
            .run_n(inputs, [self.hidden], Some(options))
            .map_err(|error| Error::Model(error.to_string()))?;
        let hidden: NdTensor<f32, 2> =
            hidden.try_into().map_err(|_| Error::Model("the output is no matrix".to_owned()))?;
        let hidden = hidden.data().ok_or_else(|| Error::Model("the output is not contiguous".to_owned()))?;
        if hidden.len() != rows * DIMENSIONS {
            return Err(Error::Model(format!("{} values instead of {}", hidden.len(), rows * DIMENSIONS)));
        }
        Ok(hidden
            .chunks_exact(length * DIMENSIONS)
            .zip(texts)
            .map(|(tokens, text)| pool(&tokens[..text.len() * DIMENSIONS]))
            .collect())
    }
}

/// The mean of the tokens' vectors.
fn pool(tokens: &[f32]) -> Vec<f32> {
    let mut vector = vec![0.0; DIMENSIONS];
    for token in tokens.chunks_exact(DIMENSIONS) {
        for (sum, value) in vector.iter_mut().zip(token) {
            *sum += value;
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "at most 256")]
    let count = (tokens.len() / DIMENSIONS) as f32;
    for value in &mut vector {
        *value /= count;
    }
    vector
}
