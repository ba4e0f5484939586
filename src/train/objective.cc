#include "train/objective.h"

namespace lorry::train {
namespace {

class Supervised final : public Objective {
 public:
  HeadLoss gradients(const MicroBatch& batch, const at::Tensor& hidden, const Head& head,
                     double scale, const at::Tensor& head_grad) override {
    return head_loss(hidden, batch.targets, head, scale, head_grad);
  }
};

}  // namespace

std::unique_ptr<Objective> supervised() { return std::make_unique<Supervised>(); }

}  // namespace lorry::train
