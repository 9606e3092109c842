//! Recurrent networks: one [`Op::Recurrent`] per layer, both directions together.
//!
//! Not here: their equations (`cost/recurrent.rs`).

use super::{Aten, Family, Input, Lowered, Plan, Result};
use crate::graph::{Cell, Dim, Op, Recurrent, Shape, TensorId};

/// Layers of one network; more is damage.
const MAX_LAYERS: i64 = 4096;

/// What all layers of a network share.
struct Network {
    cell: Cell,
    /// Where the time axis and the batch axis lie; packed sequences have one axis for both.
    layout: Layout,
    steps: Dim,
    batch: Dim,
    hidden: Dim,
    projection: Option<Dim>,
    directions: i64,
}

#[derive(Clone, Copy, PartialEq)]
enum Layout {
    TimeFirst,
    BatchFirst,
    Packed,
    /// No batch axis.
    Single,
}

impl Network {
    fn layer(&self, input: Dim) -> Recurrent {
        let state = self.projection.as_ref().unwrap_or(&self.hidden).clone();
        let directions = Dim::from(self.directions);
        let wide = &state * &directions;
        let (steps, batch) = (self.steps.clone(), self.batch.clone());
        let output = match self.layout {
            Layout::TimeFirst => vec![steps, batch, wide],
            Layout::BatchFirst => vec![batch, steps, wide],
            Layout::Packed | Layout::Single => vec![steps, wide],
        };
        let last = |width: &Dim| match self.layout {
            Layout::Single => Shape(vec![directions.clone(), width.clone()]),
            Layout::TimeFirst | Layout::BatchFirst | Layout::Packed => {
                Shape(vec![directions.clone(), self.batch.clone(), width.clone()])
            }
        };
        let mut outputs = vec![Shape(output), last(&state)];
        if self.cell == Cell::Lstm {
            outputs.push(last(&self.hidden));
        }
        Recurrent {
            cell: self.cell,
            steps: self.steps.clone(),
            batch: if self.layout == Layout::Packed { Dim::ONE } else { self.batch.clone() },
            input,
            hidden: self.hidden.clone(),
            projection: self.projection.clone(),
            directions: self.directions,
            outputs,
        }
    }
}

impl Aten<'_, '_, '_> {
    pub(super) fn recurrent(&self, base: &str) -> Family {
        Ok(Some(match base {
            "lstm" => self.stacked(Cell::Lstm),
            "gru" => self.stacked(Cell::Gru),
            "rnn_tanh" | "rnn_relu" => self.stacked(Cell::Plain),
            "lstm_cell" => self.cell(Cell::Lstm),
            "gru_cell" => self.cell(Cell::Gru),
            "rnn_tanh_cell" | "rnn_relu_cell" => self.cell(Cell::Plain),
            "mkldnn_rnn_layer" => self.single_layer(),
            _ => return Ok(None),
        }?))
    }

    fn stacked(&self, cell: Cell) -> Result<Lowered> {
        let call = self.call;
        let is_packed = call.argument("batch_sizes").is_some();
        let input = call.tensor(if is_packed { "data" } else { "input" })?;
        let mut states = call.tensor_list("hx");
        let first = *states.first().ok_or("the first state is missing")?;
        let is_batch_first = call.boolean("batch_first").unwrap_or(false);
        let layout = match (is_packed, self.rank(input)?) {
            (true, _) => Layout::Packed,
            (false, 2) => Layout::Single,
            (false, _) if is_batch_first => Layout::BatchFirst,
            (false, _) => Layout::TimeFirst,
        };
        let (steps, batch) = match layout {
            Layout::Packed => (self.length(input, 2)?, self.length(first, 2)?),
            Layout::Single => (self.length(input, 2)?, Dim::ONE),
            Layout::TimeFirst => (self.length(input, 3)?, self.length(input, 2)?),
            Layout::BatchFirst => (self.length(input, 2)?, self.length(input, 3)?),
        };
        let state = self.length(first, 1)?;
        let hidden = match states.get(1) {
            Some(cells) => self.length(*cells, 1)?,
            None => state.clone(),
        };
        let projection = (hidden != state).then_some(state);
        let is_both_ways = call.boolean("bidirectional").unwrap_or(false);
        let directions = if is_both_ways { 2 } else { 1 };
        let network = Network { cell, layout, steps, batch, hidden, projection, directions };
        let n_layers = call.int("num_layers").unwrap_or(1);
        if !(1..=MAX_LAYERS).contains(&n_layers) {
            return Err(format!("{n_layers} layers"));
        }
        states.truncate(2);
        self.layers_of(&network, input, n_layers, &states)
    }

    fn layers_of(
        &self,
        network: &Network,
        input: TensorId,
        n_layers: i64,
        states: &[TensorId],
    ) -> Result<Lowered> {
        let weights = self.call.tensor_list("params");
        let per_layer = weights.len() / usize::try_from(n_layers).unwrap_or(1);
        let mut plan = Plan::default();
        let mut value = Input::Tensor(input);
        let mut width = self.length(input, 1)?;
        let mut last: Vec<Vec<Input>> = Vec::new();
        for layer_idx in 0..usize::try_from(n_layers).unwrap_or(1) {
            let recurrent = network.layer(width);
            let n_outputs = recurrent.outputs.len();
            width = recurrent.outputs[0].0.last().cloned().unwrap_or(Dim::ONE);
            let mut operands = vec![value];
            let own = weights.iter().skip(layer_idx * per_layer).take(per_layer);
            operands.extend(own.map(|id| Input::Tensor(*id)));
            if layer_idx == 0 {
                operands.extend(states.iter().map(|id| Input::Tensor(*id)));
            }
            let made = plan.step_with_outputs(Op::Recurrent(recurrent), &operands, n_outputs);
            value = made[0];
            last.push(made[1..].to_vec());
        }
        let mut results = vec![value];
        for state_idx in 0..last[0].len() {
            let per_layer: Vec<Input> = last.iter().map(|made| made[state_idx]).collect();
            results.push(match per_layer.as_slice() {
                [only] => *only,
                _ => plan.step(Op::Concat { axis: 0 }, &per_layer),
            });
        }
        Ok(plan.results(results))
    }

    /// One step of one layer.
    fn cell(&self, cell: Cell) -> Result<Lowered> {
        let call = self.call;
        let input = call.tensor("input")?;
        let states = match call.tensor_list("hx") {
            states if states.is_empty() => vec![call.tensor("hx")?],
            states => states,
        };
        let hidden = self.length(*states.first().ok_or("the state is missing")?, 1)?;
        let outputs = vec![self.call.output_shape()?; if cell == Cell::Lstm { 2 } else { 1 }];
        let batch = if self.rank(input)? < 2 { Dim::ONE } else { self.length(input, 2)? };
        let recurrent = Recurrent {
            cell,
            steps: Dim::ONE,
            batch,
            input: self.length(input, 1)?,
            hidden,
            projection: None,
            directions: 1,
            outputs,
        };
        let mut operands = vec![input];
        operands.extend(self.given(&["w_ih", "w_hh", "b_ih", "b_hh"]));
        operands.extend(states);
        let operands: Vec<Input> = operands.into_iter().map(Input::Tensor).collect();
        let mut plan = Plan::default();
        let n_outputs = recurrent.outputs.len();
        let results = plan.step_with_outputs(Op::Recurrent(recurrent), &operands, n_outputs);
        Ok(plan.results(results))
    }

    /// One layer in one direction (oneDNN's LSTM): input, four weights, two states.
    fn single_layer(&self) -> Result<Lowered> {
        let call = self.call;
        let input = call.tensor("input")?;
        let hidden = call.dim("hidden_size").ok_or("argument `hidden_size` is missing")?;
        // Always time first here, whatever `batch_first` says of the network around.
        let shapes = call.outputs.iter().take(3).map(|(_, declared)| declared.as_ref());
        let shapes: Option<Vec<Shape>> =
            shapes.map(|declared| declared.map(|known| known.shape.clone())).collect();
        let mut plan = Plan::default();
        let recurrent = Recurrent {
            cell: Cell::Lstm,
            steps: self.length(input, 3)?,
            batch: self.length(input, 2)?,
            input: self.length(input, 1)?,
            hidden,
            projection: None,
            directions: 1,
            outputs: shapes.ok_or("the file does not give the shapes of its results")?,
        };
        let names = ["input", "weight0", "weight1", "weight2", "weight3", "hx_", "cx_"];
        let operands: Vec<Input> = self.given(&names).into_iter().map(Input::Tensor).collect();
        let n_outputs = recurrent.outputs.len();
        let mut results = plan.step_with_outputs(Op::Recurrent(recurrent), &operands, n_outputs);
        // The fourth result is what training keeps; nothing reads it in inference.
        results.truncate(3);
        Ok(plan.results(results))
    }
}
