#include "core/optimizer/optimizer.h"

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>
#include <string>

#include "core/kernels/cpu/dispatch.h"
#include "gtest/gtest.h"

namespace ballast {
namespace {

struct GoldenCase {
  std::map<std::string, double> options;
  std::map<int, std::vector<float>> weights;  // by step
};
struct Golden {
  std::map<int, std::vector<float>> grads;
  std::map<std::string, GoldenCase> cases;
};

std::vector<float> Numbers(std::istringstream& in) {
  std::vector<float> out;
  for (std::string word; in >> word;) out.push_back(std::strtof(word.c_str(), nullptr));
  return out;
}

Golden ReadGolden() {
  Golden out;
  std::ifstream file("tests/golden/optimizer.txt");
  GoldenCase* current = nullptr;
  for (std::string text; std::getline(file, text);) {
    std::istringstream in(text);
    std::string what, name;
    in >> what;
    if (what == "case") {
      in >> name;
      current = &out.cases[name];
      for (std::string pair; in >> pair;)
        current->options[pair.substr(0, pair.find('='))] = std::atof(pair.substr(pair.find('=') + 1).c_str());
      continue;
    }
    int step = 0;
    in >> step;
    (what == "grad" ? out.grads : current->weights)[step] = Numbers(in);
  }
  return out;
}

OptimizerSpec SpecOf(const std::string& name, std::map<std::string, double> options) {
  OptimizerSpec o;
  o.kind = name.rfind("adamw", 0) == 0 ? OptimizerKind::kAdamW : name.rfind("adam", 0) == 0 ? OptimizerKind::kAdam : OptimizerKind::kSgd;
  o.lr = options["lr"];
  o.momentum = options["momentum"];
  o.dampening = options["dampening"];
  o.nesterov = options["nesterov"] != 0;
  o.groups[0].weight_decay = static_cast<float>(options["weight_decay"]);
  if (o.kind != OptimizerKind::kSgd) o.beta1 = options["beta1"], o.beta2 = options["beta2"], o.eps = options["eps"];
  return o;
}

struct State {
  std::vector<float> w, m, v;
  Slots slots;
};
State StateOf(const OptimizerSpec& o, std::vector<float> w) {
  State s;
  s.m.assign(w.size(), 0);
  s.v.assign(w.size(), 0);
  s.w = std::move(w);
  s.slots = {SlotsOf(o) > 0 ? s.m.data() : nullptr, SlotsOf(o) > 1 ? s.v.data() : nullptr};
  return s;
}

double RelativeDifference(const std::vector<float>& a, const std::vector<float>& b) {
  double diff = 0, norm = 0;
  for (size_t i = 0; i < a.size(); ++i) diff += std::pow(double{a[i]} - b[i], 2), norm += std::pow(double{b[i]}, 2);
  return std::sqrt(diff / norm);
}

TEST(Optimizer, EqualsTorchOverFiftySteps) {
  const Golden golden = ReadGolden();
  ASSERT_EQ(golden.cases.size(), 8u);
  ASSERT_EQ(golden.grads.size(), 50u);
  for (const auto& [name, expected] : golden.cases) {
    const OptimizerSpec spec = SpecOf(name, expected.options);
    State s = StateOf(spec, expected.weights.at(0));
    double worst = 0;
    for (int t = 1; t <= 50; ++t) {
      ApplyOptimizer(KernelIdOf(spec), HyperOf(spec, ScheduleSpec{}, t), golden.grads.at(t), absl::MakeSpan(s.w), s.slots);
      if (t % 5 == 0) worst = std::max(worst, RelativeDifference(s.w, expected.weights.at(t)));
    }
    EXPECT_LT(worst, 1e-6) << name;
    RecordProperty(name, std::to_string(worst));
  }
}

TEST(Optimizer, EveryIsaGivesTheSameBits) {
  const Golden golden = ReadGolden();
  for (const auto& [name, expected] : golden.cases) {
    const OptimizerSpec spec = SpecOf(name, expected.options);
    std::vector<float> first;
    for (int isa = 0; isa <= static_cast<int>(BestIsa()); ++isa) {
      ForceIsaForTest(static_cast<Isa>(isa));
      State s = StateOf(spec, expected.weights.at(0));
      for (int t = 1; t <= 50; ++t) {
        ApplyOptimizer(KernelIdOf(spec), HyperOf(spec, ScheduleSpec{}, t), golden.grads.at(t), absl::MakeSpan(s.w), s.slots);
      }
      if (isa == 0) first = s.w;
      EXPECT_EQ(s.w, first) << name << " isa " << isa;
    }
    ForceIsaForTest(BestIsa());
  }
}

TEST(Optimizer, PlainSgdByHand) {
  OptimizerSpec spec;
  spec.lr = 0.5;
  std::vector<float> w = {1, 2};
  ApplyOptimizer(kKernelSgd, HyperOf(spec, {}, 1), {2.0f, -4.0f}, absl::MakeSpan(w), Slots{});
  EXPECT_EQ(w, (std::vector<float>{0, 4}));
}

TEST(Hyper, HoldsEveryGroup) {
  OptimizerSpec spec;
  spec.kind = OptimizerKind::kAdamW;
  spec.lr = 0.01;
  spec.groups = {{1, 0.1f}, {0.5, 0}};
  const std::vector<float> h = HyperOf(spec, {}, 3);
  ASSERT_EQ(h.size(), 16u);
  EXPECT_FLOAT_EQ(h[hyper_at::kLr], 0.01f);
  EXPECT_FLOAT_EQ(h[hyper_at::kDecay], 0.999f);
  EXPECT_FLOAT_EQ(h[8 + hyper_at::kLr], 0.005f);
  EXPECT_EQ(h[8 + hyper_at::kDecay], 1.0f);
  EXPECT_FLOAT_EQ(h[hyper_at::kStepSize], 0.01f / (1 - 0.729f));
  EXPECT_FLOAT_EQ(h[hyper_at::kCorrection2], 1 / std::sqrt(0.002997001f));
}

TEST(Schedule, WarmsUpThenFollowsACosine) {
  OptimizerSpec spec;
  spec.lr = 1;
  const ScheduleSpec schedule{ScheduleKind::kWarmupCosine, 4, 104, 0.1};
  EXPECT_DOUBLE_EQ(LearningRate(spec, schedule, 1), 0.25);
  EXPECT_DOUBLE_EQ(LearningRate(spec, schedule, 4), 1);
  EXPECT_DOUBLE_EQ(LearningRate(spec, schedule, 54), 0.55);
  EXPECT_DOUBLE_EQ(LearningRate(spec, schedule, 104), 0.1);
  EXPECT_DOUBLE_EQ(LearningRate(spec, schedule, 1000), 0.1);
  EXPECT_DOUBLE_EQ(LearningRate(spec, ScheduleSpec{}, 1000), 1);
}

TEST(ClipScale, ShrinksOnlyLongGradients) {
  EXPECT_EQ(ClipScale(1e6, 1, 0), 1.0f);
  EXPECT_EQ(ClipScale(1, 1, 10), 1.0f);
  EXPECT_NEAR(ClipScale(400, 2, 1), 0.1f, 1e-6);  // norm 20 / 2 = 10
}

TEST(Optimizer, SlotsAreThoseOfTorch) {
  OptimizerSpec spec;
  EXPECT_EQ(SlotsOf(spec), 0);
  spec.momentum = 0.9;
  EXPECT_EQ(SlotsOf(spec), 1);
  spec.kind = OptimizerKind::kAdam;
  EXPECT_EQ(SlotsOf(spec), 2);
  EXPECT_FALSE(IsKnownKernel(0));
  EXPECT_FALSE(IsKnownKernel(4));
}

}  // namespace
}  // namespace ballast
