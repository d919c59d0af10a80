// The models, and what eager PyTorch makes of them, are made by testdata/make_models.py when the test is built.
#include "worker/model/model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <map>
#include <sstream>

#include "worker/model/safetensors.h"

namespace ballast {
namespace {

using ::testing::HasSubstr;

std::string ReadFile(const std::string& name) {
  std::ifstream in("worker/model/testdata/" + name, std::ios::binary);
  std::stringstream bytes;
  bytes << in.rdbuf();
  EXPECT_TRUE(in.good()) << name;
  return bytes.str();
}

std::unique_ptr<Model> LoadOrDie(const std::string& name) {
  SetComputeThreads(1);  // as in make_models.py
  auto model = Model::Load(ReadFile(name + ".pt"), {});
  if (!model.ok()) throw std::runtime_error(model.status().ToString());
  return *std::move(model);
}

// One contribution: each tensor once, and when it came.
class Recorder : public ContributionSink {
 public:
  void OnF32(uint32_t tensor, absl::Span<const float> values) override {
    EXPECT_TRUE(f32.emplace(tensor, std::vector<float>(values.begin(), values.end())).second) << "tensor " << tensor << " twice";
  }
  void OnI64(uint32_t tensor, absl::Span<const int64_t> values) override {
    EXPECT_TRUE(i64.emplace(tensor, std::vector<int64_t>(values.begin(), values.end())).second) << "tensor " << tensor << " twice";
  }
  bool operator==(const Recorder& other) const { return f32 == other.f32 && i64 == other.i64; }

  std::map<uint32_t, std::vector<float>> f32;
  std::map<uint32_t, std::vector<int64_t>> i64;
};

// A case of make_models.py.
class Case {
 public:
  explicit Case(const std::string& name)
      : file_(ReadFile(name + ".safetensors")), entries_(*ParseSafetensors(file_)), model(LoadOrDie(name)) {
    values = std::make_shared<ParameterStore>(model->tensors());
    Fill("value.", values.get());
  }

  void Fill(const std::string& prefix, ParameterStore* store) const {
    for (size_t i = 0; i < model->tensors().size(); ++i) {
      const std::string_view data = Bytes(prefix + model->tensors()[i].name);
      void* to = store->dtype(i) == DType::kF32 ? static_cast<void*>(store->F32(i).data()) : store->I64(i).data();
      std::memcpy(to, data.data(), data.size());
    }
  }

  bool Has(const std::string& name) const { return entries_.contains(name); }
  std::string_view Bytes(const std::string& name) const { return entries_.at(name).data; }
  template <typename T>
  std::vector<T> Values(const std::string& name) const {
    std::vector<T> out(Bytes(name).size() / sizeof(T));
    std::memcpy(out.data(), Bytes(name).data(), Bytes(name).size());
    return out;
  }

  BatchView Batch(int i) const {
    BatchView batch;
    const auto add = [&](const ColumnSpec& column) {
      const SafetensorsEntry& entry = entries_.at("b" + std::to_string(i) + "." + column.name);
      batch.rows = static_cast<uint32_t>(entry.shape.at(0));
      batch.columns.push_back({column.name, entry.data});
    };
    for (const ColumnSpec& column : model->description().inputs) add(column);
    if (model->description().label.has_value()) add(*model->description().label);
    return batch;
  }

  // What eager says about a tensor: its gradient or what became of the buffer; empty: nothing.
  std::string Expected(const std::string& tensor) const {
    for (const std::string kind : {"grad.", "buffer."}) {
      if (Has(kind + tensor)) return kind + tensor;
    }
    return "";
  }

 private:
  const std::string file_;
  const std::map<std::string, SafetensorsEntry> entries_;

 public:
  const std::unique_ptr<Model> model;
  std::shared_ptr<ParameterStore> values;
};

constexpr int kBatches = 3;

class ModelCase : public ::testing::TestWithParam<const char*> {};

TEST_P(ModelCase, InitialValuesAreThoseOfTheFile) {
  const Case c(GetParam());
  ParameterStore initial(c.model->tensors());
  ParameterStore expected(c.model->tensors());
  ASSERT_TRUE(c.model->InitialValues(&initial).ok());
  c.Fill("init.", &expected);
  for (size_t i = 0; i < initial.tensors(); ++i) {
    if (initial.dtype(i) == DType::kF32) {
      EXPECT_EQ(initial.F32(i), expected.F32(i)) << c.model->tensors()[i].name;
    }
    if (initial.dtype(i) == DType::kI64) {
      EXPECT_EQ(initial.I64(i), expected.I64(i)) << c.model->tensors()[i].name;
    }
  }
}

// Bit for bit, except where eager adds in another width (a double parameter) or order (sparse gradients): "partial" has both.
void ExpectSame(const std::vector<float>& got, const std::vector<float>& eager, const std::string& name, bool bits) {
  if (bits) {
    EXPECT_EQ(got, eager) << name << ": not eager's bits";
    return;
  }
  ASSERT_EQ(got.size(), eager.size()) << name;
  double difference = 0, norm = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    difference += std::pow(double{got[i]} - eager[i], 2);
    norm += std::pow(double{eager[i]}, 2);
  }
  EXPECT_LE(std::sqrt(difference), 1e-6 * std::sqrt(norm)) << name;
}

void ExpectEager(const Case& c, const Recorder& got) {
  size_t expected_tensors = 0;
  for (uint32_t i = 0; i < c.model->tensors().size(); ++i) {
    const TensorSpec& spec = c.model->tensors()[i];
    const std::string name = c.Expected(spec.name);
    if (name.empty()) {
      EXPECT_FALSE(got.f32.contains(i) || got.i64.contains(i)) << spec.name << " was not touched";
      continue;
    }
    ++expected_tensors;
    if (spec.dtype == DType::kI64) {
      ASSERT_TRUE(got.i64.contains(i)) << spec.name;
      EXPECT_EQ(got.i64.at(i), c.Values<int64_t>(name)) << spec.name;
    } else {
      ASSERT_TRUE(got.f32.contains(i)) << spec.name;
      ExpectSame(got.f32.at(i), c.Values<float>(name), spec.name, !c.Has("value.frozen.weight"));
    }
  }
  EXPECT_EQ(got.f32.size() + got.i64.size(), expected_tensors);
}

TEST_P(ModelCase, ContributionEqualsEagerAndIsHandedOverDuringBackward) {
  const Case c(GetParam());
  const std::vector<double> losses = c.Values<double>("loss");
  for (int round = 0; round < 2; ++round) {  // nothing is left over from the contribution before
    Recorder during;
    ASSERT_TRUE(c.model->BeginContribution(c.values).ok());
    for (int b = 0; b < kBatches; ++b) {
      const auto loss = c.model->TrainBatch(c.Batch(b), 1, b == kBatches - 1 ? &during : nullptr);
      ASSERT_TRUE(loss.ok()) << loss.status();
      EXPECT_DOUBLE_EQ(*loss, losses[b]);
    }
    for (const auto& parameter : c.model->description().tensors) {
      if (!c.Has("grad." + parameter.name)) continue;
      bool seen = false;
      for (const auto& [i, values] : during.f32) seen |= c.model->tensors()[i].name == parameter.name;
      EXPECT_TRUE(seen) << parameter.name << " did not come during backward";
    }
    ASSERT_TRUE(c.model->FinishContribution(&during).ok());
    ExpectEager(c, during);
  }
}

TEST_P(ModelCase, ContributionWhoseEndIsNotKnownIsTheSame) {
  const Case c(GetParam());
  Recorder after;
  ASSERT_TRUE(c.model->BeginContribution(c.values).ok());
  for (int b = 0; b < kBatches; ++b) ASSERT_TRUE(c.model->TrainBatch(c.Batch(b), 1, nullptr).ok());
  ASSERT_TRUE(c.model->FinishContribution(&after).ok());
  ExpectEager(c, after);
}

TEST_P(ModelCase, BadBatchLeavesNothingBehind) {
  const Case c(GetParam());
  BatchView bad = c.Batch(1);
  bad.columns.front().data.remove_suffix(1);
  Recorder sink;
  ASSERT_TRUE(c.model->BeginContribution(c.values).ok());
  for (int b = 0; b < kBatches; ++b) {
    EXPECT_EQ(c.model->TrainBatch(bad, 1, nullptr).status().code(), absl::StatusCode::kInvalidArgument);
    ASSERT_TRUE(c.model->TrainBatch(c.Batch(b), 1, nullptr).ok());
  }
  EXPECT_THAT(std::string(c.model->TrainBatch(bad, 1, &sink).status().message()),
              HasSubstr("column " + std::string(bad.columns.front().name)));
  ASSERT_TRUE(c.model->FinishContribution(&sink).ok());
  ExpectEager(c, sink);
}

TEST_P(ModelCase, ScoresAreThoseOfEagerInEvalMode) {
  const Case c(GetParam());
  ASSERT_TRUE(c.model->BeginContribution(c.values).ok());  // train mode and changed buffers must not show
  ASSERT_TRUE(c.model->TrainBatch(c.Batch(2), 1, nullptr).ok());
  ASSERT_TRUE(c.model->SetInferValues(c.values).ok());
  for (int round = 0; round < 2; ++round) {
    const auto outputs = c.model->Infer(c.Batch(0));
    ASSERT_TRUE(outputs.ok()) << outputs.status();
    for (const OutputTensor& output : *outputs) {
      EXPECT_EQ(output.dtype, "float32");
      EXPECT_EQ(output.shape.at(0), c.Batch(0).rows);
      EXPECT_EQ(output.data, c.Bytes("out." + output.name)) << output.name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, ModelCase,
                         ::testing::Values("mlp", "mlp_norm", "transformer", "gru", "shared", "partial", "buffers", "method"),
                         [](const auto& info) { return std::string(info.param); });

TEST(Model, GradientsComeWhileBackwardRuns) {
  // The last layers' gradients must come before the first layers': they are spread over backward, not delivered at its end.
  const Case c("transformer");
  struct Order : ContributionSink {
    void OnF32(uint32_t tensor, absl::Span<const float>) override { tensors.push_back(tensor); }
    void OnI64(uint32_t, absl::Span<const int64_t>) override {}
    std::vector<uint32_t> tensors;
  } order;
  ASSERT_TRUE(c.model->BeginContribution(c.values).ok());
  ASSERT_TRUE(c.model->TrainBatch(c.Batch(0), 1, &order).ok());
  ASSERT_GT(order.tensors.size(), 10u);
  EXPECT_THAT(c.model->tensors()[order.tensors.front()].name, HasSubstr("head."));
  EXPECT_EQ(c.model->tensors()[order.tensors.back()].name, "embedding.weight");
}

TEST(Model, BatchNormOnOneRowIsRefused) {
  const Case c("mlp_norm");
  BatchView one = c.Batch(0);
  one.columns[0].data = one.columns[0].data.substr(0, 6 * sizeof(float));
  one.columns[1].data = one.columns[1].data.substr(0, sizeof(int64_t));
  one.rows = 1;
  ASSERT_TRUE(c.model->BeginContribution(c.values).ok());
  const auto loss = c.model->TrainBatch(one, 1, nullptr);
  EXPECT_EQ(loss.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(loss.status().message()), HasSubstr("Expected more than 1 value per channel"));
  Recorder sink;
  EXPECT_EQ(c.model->FinishContribution(&sink).code(), absl::StatusCode::kFailedPrecondition);
}

TEST(Model, LossThatIsNotFiniteIsRefused) {
  const Case c("mlp");
  std::vector<float> x(5 * 6, 1.0f);
  x[7] = NAN;
  BatchView batch = c.Batch(0);
  batch.columns[0].data = {reinterpret_cast<const char*>(x.data()), x.size() * sizeof(float)};
  ASSERT_TRUE(c.model->BeginContribution(c.values).ok());
  EXPECT_THAT(std::string(c.model->TrainBatch(batch, 1, nullptr).status().message()), HasSubstr("the loss is not finite: nan"));
}

TEST(Model, GradientThatIsNotFiniteIsRefusedAndNotHandedOver) {
  const auto model = LoadOrDie("rough");
  auto values = std::make_shared<ParameterStore>(model->tensors());
  ASSERT_TRUE(model->InitialValues(values.get()).ok());
  const std::vector<float> x = {1, 2, 3, 4, 0, 0, 0, 0};  // the second row has loss 0 with an infinite slope
  const std::string_view bytes(reinterpret_cast<const char*>(x.data()), x.size() * sizeof(float));
  const BatchView good{1, {{"x", bytes.substr(0, 16)}}};
  const BatchView bad{2, {{"x", bytes}}};
  Recorder early, late;
  ASSERT_TRUE(model->BeginContribution(values).ok());
  EXPECT_THAT(std::string(model->TrainBatch(bad, 1, nullptr).status().message()), HasSubstr("gradient of weight"));
  ASSERT_TRUE(model->TrainBatch(good, 1, nullptr).ok());
  EXPECT_THAT(std::string(model->TrainBatch(bad, 1, &early).status().message()), HasSubstr("gradient of weight"));
  EXPECT_TRUE(early.f32.empty());
  ASSERT_TRUE(model->FinishContribution(&late).ok());
  ASSERT_EQ(late.f32.size(), 1u);
  for (float g : late.f32.at(0)) EXPECT_TRUE(std::isfinite(g));
}

TEST(Model, IdOutsideOfTheVocabularyIsRefused) {
  const Case c("gru");
  const std::vector<int32_t> ids(5 * 8, 1000);
  BatchView batch = c.Batch(0);
  batch.columns[0].data = {reinterpret_cast<const char*>(ids.data()), ids.size() * sizeof(int32_t)};
  ASSERT_TRUE(c.model->BeginContribution(c.values).ok());
  const absl::Status status = c.model->TrainBatch(batch, 1, nullptr).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("index out of range"));
  ASSERT_TRUE(c.model->SetInferValues(c.values).ok());
  EXPECT_EQ(c.model->Infer(batch).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(Model, MissingColumnIsNamed) {
  const Case c("mlp");
  BatchView batch = c.Batch(0);
  batch.columns.pop_back();
  ASSERT_TRUE(c.model->BeginContribution(c.values).ok());
  EXPECT_THAT(std::string(c.model->TrainBatch(batch, 1, nullptr).status().message()), HasSubstr("column label is missing"));
}

TEST(Model, ScalarLossIsRefused) {
  const auto model = LoadOrDie("scalar");
  auto values = std::make_shared<ParameterStore>(model->tensors());
  ASSERT_TRUE(model->InitialValues(values.get()).ok());
  const std::vector<float> x = {1, 2, 3, 4};
  const BatchView batch{1, {{"x", {reinterpret_cast<const char*>(x.data()), 16}}}};
  ASSERT_TRUE(model->BeginContribution(values).ok());
  EXPECT_THAT(std::string(model->TrainBatch(batch, 1, nullptr).status().message()), HasSubstr("it must be one per row: [1]"));
}

TEST(Model, ForwardThatChangesAParameterIsRefused) {
  const Case c("mlp");
  const auto model = LoadOrDie("decaying");
  auto values = std::make_shared<ParameterStore>(model->tensors());
  ASSERT_TRUE(model->InitialValues(values.get()).ok());
  ASSERT_TRUE(model->BeginContribution(values).ok());
  EXPECT_THAT(std::string(model->TrainBatch(c.Batch(0), 1, nullptr).status().message()), HasSubstr("changes the parameter head.weight"));
}

TEST(Model, DropoutFollowsTheSeed) {
  const Case c("transformer");
  const auto model = LoadOrDie("dropout");
  std::vector<double> losses;
  for (uint64_t seed : {1, 2, 1}) {
    ASSERT_TRUE(model->BeginContribution(c.values).ok());
    losses.push_back(model->TrainBatch(c.Batch(0), seed, nullptr).value());
  }
  EXPECT_NE(losses[0], losses[1]);
  EXPECT_EQ(losses[0], losses[2]);
}

TEST(Model, FilesThatAreNoModelsAreRefused) {
  const std::string good = ReadFile("mlp.pt");
  for (const std::string& bad : {std::string(), std::string("hello"), good.substr(0, good.size() / 2), good.substr(good.size() / 2)}) {
    EXPECT_EQ(Model::Load(bad, {}).status().code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_THAT(std::string(Model::Load(ReadFile("undescribed.pt"), {}).status().message()), HasSubstr("ballast.export"));
}

TEST(Model, TensorsOfAnotherRunAreRefused) {
  const std::string archive = ReadFile("mlp.pt");
  const std::vector<TensorSpec> own = LoadOrDie("mlp")->tensors();
  auto fewer = own;
  fewer.pop_back();
  EXPECT_THAT(std::string(Model::Load(archive, fewer).status().message()), HasSubstr("it has 4 tensors, the run 3"));
  auto renamed = own;
  renamed[1].name = "other";
  EXPECT_EQ(Model::Load(archive, renamed).status().code(), absl::StatusCode::kInvalidArgument);
  auto reshaped = own;
  reshaped[0].shape = {16, 7};
  EXPECT_THAT(std::string(Model::Load(archive, reshaped).status().message()), HasSubstr("layers.0.weight"));
  const auto model = Model::Load(archive, own);
  ASSERT_TRUE(model.ok());
  EXPECT_EQ((*model)->BeginContribution(std::make_shared<ParameterStore>(fewer)).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace ballast

// For the asan configuration: torch's zip reader leaks its state when an archive is broken.
extern "C" const char* __lsan_default_suppressions() { return "leak:mz_zip_reader_init\n"; }
