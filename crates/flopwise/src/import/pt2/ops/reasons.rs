//! Operators that are known and have no count, each with the reason.
//!
//! Not here: operators whose rule fails on their operands.

/// Why an operator without a rule has no count.
pub(super) fn uncounted(library: &str, base: &str, target: &str) -> String {
    let named = target.strip_prefix("torch.ops.").unwrap_or(target);
    match library {
        "aten" => match aten(base) {
            Some(reason) => reason.to_owned(),
            None => format!("no rule for {named}"),
        },
        "higher_order" => match base {
            "triton_kernel_wrapper_functional" | "triton_kernel_wrapper_mutation" => {
                "a Triton kernel of the model's own: the file does not say what it computes".into()
            }
            "executorch_call_delegate" => {
                "handed to a back end as a whole: the file does not say what it computes".into()
            }
            // A wrapper of an operator: the operator is named, and it is nobody's but the model's.
            _ if !named.starts_with("higher_order.") => own(named),
            _ => format!("no rule for {named}"),
        },
        "_c10d_functional" | "c10d" | "c10d_functional" => {
            format!("{named} passes tensors between devices: its cost is the network's")
        }
        "torchvision"
        | "quantized_decomposed"
        | "torchao"
        | "transformers"
        | "prims"
        | "torch_attn" => format!("no rule for {named}"),
        _ => own(named),
    }
}

fn own(named: &str) -> String {
    format!("{named} is an operator of the model's own: the file does not say what it computes")
}

fn aten(base: &str) -> Option<&'static str> {
    Some(match base {
        "linalg_inv"
        | "linalg_inv_ex"
        | "inverse"
        | "linalg_solve"
        | "_linalg_solve_ex"
        | "linalg_solve_ex"
        | "linalg_solve_triangular"
        | "linalg_cholesky"
        | "linalg_cholesky_ex"
        | "cholesky"
        | "cholesky_solve"
        | "cholesky_inverse"
        | "linalg_lu"
        | "linalg_lu_factor"
        | "linalg_lu_factor_ex"
        | "linalg_lu_solve"
        | "linalg_ldl_factor"
        | "linalg_ldl_factor_ex"
        | "linalg_ldl_solve"
        | "linalg_qr"
        | "linalg_householder_product"
        | "geqrf"
        | "ormqr"
        | "orgqr"
        | "linalg_det"
        | "_linalg_det"
        | "linalg_slogdet"
        | "_linalg_slogdet"
        | "logdet"
        | "det"
        | "slogdet"
        | "triangular_solve"
        | "lu_unpack" => {
            "a factorisation or a solution of equations: how many operations it takes is up to \
             the linear algebra library"
        }
        "linalg_eig" | "linalg_eigh" | "linalg_eigvals" | "linalg_eigvalsh" | "_linalg_eigh"
        | "_linalg_eigvals" | "linalg_svd" | "linalg_svdvals" | "_linalg_svd" | "svd"
        | "linalg_matrix_exp" | "matrix_exp" | "linalg_pinv" | "pinverse" | "linalg_lstsq"
        | "linalg_matrix_rank" | "linalg_cond" => {
            "an iteration that runs until it has converged: its operations depend on the data"
        }
        "_ctc_loss" | "ctc_loss" => "its operations depend on the lengths of the targets",
        "_fused_moving_avg_obs_fq_helper" | "fused_moving_avg_obs_fake_quant" => {
            "an observer of training: what it does depends on switches held in tensors"
        }
        _ => return None,
    })
}
