//! Scaled dot-product attention and the layers that are fused around it.
//!
//! Not here: which pairs a mask leaves (`graph/mask.rs`).

use super::{Aten, Family, Input, Lowered, Plan, Result, one};
use crate::graph::{
    Attention, Band, Dim, Function, Mask, MatMul, Normalization, Op, Orientation, Range, Storage,
    TensorId,
};

impl Aten<'_, '_, '_> {
    pub(super) fn attentions(&self, base: &str) -> Family {
        Ok(Some(match base {
            "scaled_dot_product_attention"
            | "_scaled_dot_product_attention_math"
            | "_scaled_dot_product_attention_math_for_mps"
            | "_scaled_dot_product_flash_attention"
            | "_scaled_dot_product_flash_attention_for_cpu"
            | "_scaled_dot_product_efficient_attention"
            | "_scaled_dot_product_cudnn_attention"
            | "_scaled_dot_product_fused_attention_overrideable"
            | "scaled_dot_product_fused_attention_overrideable" => self.attention(),
            "_flash_attention_forward"
            | "_efficient_attention_forward"
            | "_cudnn_attention_forward"
            | "_varlen_attn" => self.rows_attention(),
            "_native_multi_head_attention" => self.multi_head().map(Plan::last),
            "_transformer_encoder_layer_fwd" => self.encoder_layer(),
            _ => return Ok(None),
        }?))
    }

    fn attention(&self) -> Result<Lowered> {
        let bias = ["attn_mask", "attn_bias", "bias"];
        let mask = match self.call.boolean("is_causal") {
            Some(true) => Mask::causal(),
            _ if bias.iter().any(|name| self.call.optional_tensor(name).is_some()) => Mask::Tensor,
            _ => Mask::Full,
        };
        let operands = self.given(&["query", "key", "value", "attn_mask", "attn_bias"]);
        one(Op::Attention(Attention::new(mask)), &operands)
    }

    /// Attention over `[batch, length, heads, width]`, or over sequences that lie one behind the
    /// other, `[length, heads, width]`. Where one ends only a tensor says.
    fn rows_attention(&self) -> Result<Lowered> {
        let mut plan = Plan::default();
        let query = self.call.tensor("query")?;
        let rank = self.rank(query)?;
        let swap: Vec<usize> = match rank {
            3 => vec![1, 0, 2],
            4 => vec![0, 2, 1, 3],
            _ => return Err(format!("attention over {rank} axes")),
        };
        let mut operands = Vec::new();
        for name in ["query", "key", "value"] {
            operands.push(plan.permute(&swap, Input::Tensor(self.call.tensor(name)?)));
        }
        let lengths = ["cum_seq_q", "cu_seqlens_q", "cu_seq_q", "attn_bias", "bias", "seqused_k"];
        let is_decided_by_tensor = !self.given(&lengths).is_empty();
        let mask = match self.windowed() {
            _ if is_decided_by_tensor => Mask::Tensor,
            Some(mask) => mask,
            None => Mask::Full,
        };
        let attended = plan.step(Op::Attention(Attention::new(mask)), &operands);
        plan.permute(&swap, attended);
        Ok(plan.last())
    }

    /// The mask that numbers describe.
    fn windowed(&self) -> Option<Mask> {
        let call = self.call;
        let is_causal = call.boolean("is_causal").unwrap_or(false)
            || call.int("custom_mask_type").is_some_and(|kind| kind != 0);
        let listed = call.ints("window_size").unwrap_or_default();
        let edge = |name: &str, place: usize| {
            let edge = call.int(name).or_else(|| listed.get(place).copied());
            edge.filter(|edge| 0 <= *edge).map(Dim::from)
        };
        let left = edge("window_size_left", 0);
        let right = if is_causal { Some(Dim::ZERO) } else { edge("window_size_right", 1) };
        let is_open = left.is_none() && right.is_none();
        (!is_open).then_some(Mask::Band(Band { left, right, offset: Dim::ZERO }))
    }

    /// The fast path of `nn.MultiheadAttention`: one product for query, key and value, or one
    /// each, attention, one product.
    fn multi_head(&self) -> Result<Plan> {
        let call = self.call;
        let mut plan = Plan::default();
        let (query, key, value) =
            (call.tensor("query")?, call.tensor("key")?, call.tensor("value")?);
        let weights = Projections {
            qkv: call.tensor("qkv_weight")?,
            qkv_bias: call.tensor("qkv_bias")?,
            out: call.tensor("proj_weight")?,
            out_bias: call.tensor("proj_bias")?,
            heads: call.int("num_head").unwrap_or(1),
            mask: call.optional_tensor("mask"),
        };
        self.projected(&mut plan, [query, key, value].map(Input::Tensor), query, &weights)?;
        Ok(plan)
    }

    /// `like` has the shape of the operands.
    fn projected(
        &self,
        plan: &mut Plan,
        operands: [Input; 3],
        like: TensorId,
        weights: &Projections,
    ) -> Result<Input> {
        let width = self.length(like, 1)?;
        let (batch, length) = (self.length(like, 3)?, self.length(like, 2)?);
        let heads = Dim::from(weights.heads.max(1));
        let per_head = width.floor_div(&heads);
        let linear = Op::MatMul(MatMul::new(Orientation::Plain, Orientation::Transposed));
        let part = |plan: &mut Plan, tensor: TensorId, part_idx: i64| {
            let start = &width * &Dim::from(part_idx);
            let ranges = vec![Range { axis: 0, end: &start + &width, start, step: 1 }];
            plan.step(Op::Slice { ranges, storage: Storage::View }, &[Input::Tensor(tensor)])
        };
        let mut split = Vec::new();
        for (part_idx, operand) in (0i64..).zip(operands) {
            let weight = part(plan, weights.qkv, part_idx);
            let bias = part(plan, weights.qkv_bias, part_idx);
            let product = plan.step(linear.clone(), &[operand, weight, bias]);
            let rows = if part_idx == 0 { length.clone() } else { self.key_length(like)? };
            let shape = vec![batch.clone(), rows, heads.clone(), per_head.clone()];
            let parted = plan.reshape(shape, product);
            split.push(plan.permute(&[0, 2, 1, 3], parted));
        }
        let kind = if weights.mask.is_some() { Mask::Tensor } else { Mask::Full };
        let attended = plan.step(Op::Attention(Attention::new(kind)), &split);
        let rows = plan.permute(&[0, 2, 1, 3], attended);
        let joined = plan.reshape(vec![batch, length, width.clone()], rows);
        let (out, bias) = (Input::Tensor(weights.out), Input::Tensor(weights.out_bias));
        Ok(plan.step(linear, &[joined, out, bias]))
    }

    fn key_length(&self, like: TensorId) -> Result<Dim> {
        self.length(self.call.optional_tensor("key").unwrap_or(like), 2)
    }

    /// `nn.TransformerEncoderLayer` as one operator (its fast path in inference).
    fn encoder_layer(&self) -> Result<Lowered> {
        let call = self.call;
        let mut plan = Plan::default();
        let source = call.tensor("src")?;
        let tensor = |name: &str| call.tensor(name).map(Input::Tensor);
        let weights = Projections {
            qkv: call.tensor("qkv_weight")?,
            qkv_bias: call.tensor("qkv_bias")?,
            out: call.tensor("proj_weight")?,
            out_bias: call.tensor("proj_bias")?,
            heads: call.int("num_heads").unwrap_or(1),
            mask: call.optional_tensor("mask"),
        };
        let norm = Op::Normalization(Normalization::Layer { axes: 1 });
        let linear = Op::MatMul(MatMul::new(Orientation::Plain, Orientation::Transposed));
        let first = [tensor("norm_weight_1")?, tensor("norm_bias_1")?];
        let second = [tensor("norm_weight_2")?, tensor("norm_bias_2")?];
        let is_first = call.boolean("norm_first").unwrap_or(false);
        let is_gelu = call.boolean("use_gelu").unwrap_or(false);
        let function = if is_gelu { Function::GeluErf } else { Function::Relu };
        let normed = |plan: &mut Plan, is_here: bool, value: Input, affine: [Input; 2]| {
            if is_here { plan.step(norm.clone(), &[value, affine[0], affine[1]]) } else { value }
        };
        let x = Input::Tensor(source);
        let into = normed(&mut plan, is_first, x, first);
        let attended = self.projected(&mut plan, [into; 3], source, &weights)?;
        let sum = plan.apply(Function::Add, &[x, attended]);
        let middle = normed(&mut plan, !is_first, sum, first);
        let into = normed(&mut plan, is_first, middle, second);
        let wide =
            plan.step(linear.clone(), &[into, tensor("ffn_weight_1")?, tensor("ffn_bias_1")?]);
        let active = plan.apply(function, &[wide]);
        let narrow = plan.step(linear, &[active, tensor("ffn_weight_2")?, tensor("ffn_bias_2")?]);
        let sum = plan.apply(Function::Add, &[middle, narrow]);
        normed(&mut plan, !is_first, sum, second);
        Ok(plan.last())
    }
}

/// Weights around an attention.
struct Projections {
    qkv: TensorId,
    qkv_bias: TensorId,
    out: TensorId,
    out_bias: TensorId,
    heads: i64,
    mask: Option<TensorId>,
}
