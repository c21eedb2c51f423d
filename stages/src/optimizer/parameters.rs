//! Trainable parameters with their Adam moments, outside any tape.
//!
//! The master copy of a parameter lives in a device buffer; each step makes leaves from it and updates it in place.
//! A *tied* pair shares one matrix: each is the other's transpose. Both stay parameters with their own gradients and
//! moments, and every update of one is written through to the other, so a shared entry is updated (and decayed) twice
//! a step, first by one and then by the other, as in the reference (spec sections 1.1 and 2.6).

use spdflow_engine::kind::StageError;
use spdflow_kernels::adamw::{Update, clip_factor};

use crate::artifact::tensors::{Tensor, Tensors};
use crate::bridge::{Array, Backend, DeviceResult, GradientBuffer, Graph, Var};

/// A trainable tensor.
pub struct Parameter<D: Backend> {
    /// Its key in the state dict.
    pub name: String,
    /// Its shape in the state dict.
    pub shape: Vec<usize>,
    /// Its shape as a matrix on the device.
    matrix: (usize, usize),
    value: D::Buffer,
    mean: D::Buffer,
    variance: D::Buffer,
    /// The parameter that holds this one's transpose in shared storage.
    tied_to: Option<usize>,
}

/// An ordered list of parameters and how often each was updated.
pub struct Parameters<D: Backend> {
    device: D,
    list: Vec<Parameter<D>>,
    updates: u64,
}

/// The settings of AdamW that do not change from step to step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// β₁ and β₂.
    pub betas: (f64, f64),
    /// ε.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
}

impl AdamW {
    /// β 0.9 and 0.999, ε 1e-8, no weight decay.
    pub const DEFAULT: Self = Self { betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0 };
}

/// Parameters that are clipped together.
#[derive(Debug, Clone)]
pub struct ClipGroup {
    /// Their indices.
    pub parameters: std::ops::Range<usize>,
    /// The largest global L2 norm their gradients may have; unlimited when absent.
    pub max_norm: Option<f64>,
}

impl<D: Backend> Parameters<D> {
    /// Returns an empty list.
    #[must_use]
    pub fn new(device: &D) -> Self {
        Self { device: device.clone(), list: Vec::new(), updates: 0 }
    }

    /// Adds a parameter; returns its index.
    ///
    /// # Errors
    /// The device's.
    ///
    /// # Panics
    /// If the data does not fill the shape, or the shape does not fill the matrix.
    pub fn push(
        &mut self,
        name: String,
        shape: Vec<usize>,
        matrix: (usize, usize),
        data: Vec<f32>,
    ) -> DeviceResult<usize, D> {
        assert_eq!(
            (data.len(), matrix.0 * matrix.1),
            (shape.iter().product(), data.len()),
            "shape of parameter `{name}`"
        );
        let zeros = vec![0.0; data.len()];
        let (mean, variance) = (self.device.buffer(zeros.clone())?, self.device.buffer(zeros)?);
        let value = self.device.buffer(data)?;
        self.list.push(Parameter { name, shape, matrix, value, mean, variance, tied_to: None });
        Ok(self.list.len() - 1)
    }

    /// Makes `copy` the transpose of `original`, in shared storage from now on.
    ///
    /// # Errors
    /// The device's.
    ///
    /// # Panics
    /// If their shapes are not each other's transpose.
    pub fn tie(&mut self, original: usize, copy: usize) -> DeviceResult<(), D> {
        let (rows, cols) = self.list[original].matrix;
        assert_eq!(self.list[copy].matrix, (cols, rows), "tied parameters are each other's transpose");
        self.list[original].tied_to = Some(copy);
        self.list[copy].tied_to = Some(original);
        self.write_through(original)
    }

    fn write_through(&mut self, index: usize) -> DeviceResult<(), D> {
        let Some(partner) = self.list[index].tied_to else { return Ok(()) };
        let (rows, cols) = self.list[index].matrix;
        let [from, to] = self.list.get_disjoint_mut([index, partner]).expect("a parameter is not tied to itself");
        self.device.transpose_into(&from.value, rows, cols, &mut to.value)
    }

    /// Returns how many parameters there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Returns whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Returns the parameters.
    pub fn iter(&self) -> impl Iterator<Item = &Parameter<D>> {
        self.list.iter()
    }

    /// Returns the values as leaves of `graph`, in order.
    ///
    /// # Errors
    /// The device's.
    pub fn leaves(&self, graph: &Graph<D>) -> DeviceResult<Vec<Var<D>>, D> {
        self.values()?.into_iter().map(|value| graph.leaf(value)).collect()
    }

    /// Returns the values as matrices, in order.
    ///
    /// # Errors
    /// The device's.
    pub fn values(&self) -> DeviceResult<Vec<Array<D>>, D> {
        self.list.iter().map(|p| self.device.array_of_buffer(&p.value, p.matrix)).collect()
    }

    /// Returns the global L2 norm of `gradients`.
    ///
    /// # Errors
    /// The device's.
    pub fn gradient_norm(&self, gradients: &[GradientBuffer<D>]) -> DeviceResult<f64, D> {
        let mut squares = 0.0;
        for gradient in gradients {
            squares += self.device.squared_norm(gradient)?;
        }
        Ok(squares.sqrt())
    }

    /// Clips the gradients group by group and applies one AdamW update to every parameter of the groups, in order.
    ///
    /// * `gradients`: one for each parameter, in order.
    ///
    /// # Errors
    /// The device's.
    pub fn update(
        &mut self,
        gradients: Vec<GradientBuffer<D>>,
        groups: &[ClipGroup],
        optimizer: AdamW,
        learning_rate: f64,
    ) -> DeviceResult<(), D> {
        self.updates += 1;
        for group in groups {
            let gradient_scale = match group.max_norm {
                None => 1.0,
                Some(max_norm) => clip_factor(self.gradient_norm(&gradients[group.parameters.clone()])?, max_norm),
            };
            let update = Update {
                learning_rate,
                beta1: optimizer.betas.0,
                beta2: optimizer.betas.1,
                eps: optimizer.eps,
                weight_decay: optimizer.weight_decay,
                step: self.updates,
                gradient_scale,
            };
            for index in group.parameters.clone() {
                let p = &mut self.list[index];
                self.device.adamw(&mut p.value, &gradients[index], &mut p.mean, &mut p.variance, update)?;
                self.write_through(index)?;
            }
        }
        gradients.into_iter().for_each(D::recycle_gradient);
        Ok(())
    }

    /// Forgets the moments and the number of updates, as a fresh optimiser would.
    ///
    /// # Errors
    /// The device's.
    pub fn reset_optimizer(&mut self) -> DeviceResult<(), D> {
        self.updates = 0;
        for p in &mut self.list {
            let zeros = vec![0.0; p.matrix.0 * p.matrix.1];
            p.mean = self.device.buffer(zeros.clone())?;
            p.variance = self.device.buffer(zeros)?;
        }
        Ok(())
    }

    /// Returns the values by name.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        self.list
            .iter()
            .map(|p| (p.name.clone(), Tensor::new(p.shape.clone(), self.device.read_buffer(&p.value))))
            .collect()
    }

    /// Returns everything needed to continue: values as `value/NAME`, moments as `mean/NAME` and `variance/NAME`.
    pub fn checkpoint(&self) -> Vec<(String, Tensor)> {
        self.list
            .iter()
            .flat_map(|p| {
                [("value", &p.value), ("mean", &p.mean), ("variance", &p.variance)].map(|(what, buffer)| {
                    (format!("{what}/{}", p.name), Tensor::new(p.shape.clone(), self.device.read_buffer(buffer)))
                })
            })
            .collect()
    }

    /// Lets `replace` overwrite all values and moments in place, and takes the number of updates that it returns.
    ///
    /// # Errors
    /// Those of `replace`.
    pub fn replace<E>(&mut self, replace: impl FnOnce(&mut [&mut D::Buffer], u64) -> Result<u64, E>) -> Result<(), E> {
        let buffers = self.list.iter_mut().flat_map(|p| [&mut p.value, &mut p.mean, &mut p.variance]);
        self.updates = replace(&mut buffers.collect::<Vec<_>>(), self.updates)?;
        Ok(())
    }

    /// Returns how many updates were applied since the optimiser was fresh.
    #[must_use]
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Takes values and moments from a checkpoint written by [`Parameters::checkpoint`] after `updates` updates.
    ///
    /// # Errors
    /// [`StageError::Failed`] if a tensor is missing or has another shape.
    pub fn restore(&mut self, checkpoint: &Tensors, updates: u64) -> Result<(), StageError> {
        for p in &mut self.list {
            for (what, buffer) in [("value", &mut p.value), ("mean", &mut p.mean), ("variance", &mut p.variance)] {
                let tensor = checkpoint.get(&format!("{what}/{}", p.name))?;
                if tensor.shape != p.shape {
                    return Err(StageError::failed(format!(
                        "checkpoint of `{}` has shape {:?}, expected {:?}",
                        p.name, tensor.shape, p.shape
                    )));
                }
                *buffer = self
                    .device
                    .buffer(tensor.data.clone())
                    .map_err(|error| StageError::failed(format!("{error:?}")))?;
            }
        }
        self.updates = updates;
        Ok(())
    }

    /// Overwrites the values whose names `state` holds, keeping moments.
    ///
    /// # Errors
    /// [`StageError::Failed`] if a shape differs.
    pub fn load(&mut self, state: &Tensors) -> Result<(), StageError> {
        for p in &mut self.list {
            let tensor = state.get(&p.name)?;
            if tensor.shape != p.shape {
                return Err(StageError::failed(format!(
                    "tensor `{}` has shape {:?}, expected {:?}",
                    p.name, tensor.shape, p.shape
                )));
            }
            p.value =
                self.device.buffer(tensor.data.clone()).map_err(|error| StageError::failed(format!("{error:?}")))?;
        }
        Ok(())
    }
}

impl<D: Backend> Parameters<D> {
    /// Returns Adam's mean and variance of the parameter at `index`.
    #[must_use]
    pub fn moments(&self, index: usize) -> (Vec<f32>, Vec<f32>) {
        (self.device.read_buffer(&self.list[index].mean), self.device.read_buffer(&self.list[index].variance))
    }
}
