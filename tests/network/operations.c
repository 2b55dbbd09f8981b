// The engine's operations one by one, for test_operations.py; the engine's source stands before this
// text. Of the job, `parameters`, `velocity` and `running` are the operands, `logits` takes the
// results, `count` numbers each, a multiple of LANES, and `batch_size` says which operation. The
// last two operations take and give double precision, two floats of these arrays for each number.

void operate(Job *job) {
  const uint64_t before = set_float_mode();
  const float *a = job->parameters, *b = job->velocity, *c = job->running;
  for (int64_t i = 0; i < job->count; i += LANES) {
    vec x, y, z, r = zero();
    reg regs[REGS];
    __builtin_memcpy(&x, a + i, sizeof x), __builtin_memcpy(&y, b + i, sizeof y);
    __builtin_memcpy(&z, c + i, sizeof z), __builtin_memcpy(regs, a + i, sizeof x);
    switch (job->batch_size) {
      case 0: r = fused(x, y, z); break;
      case 1: r = choose(x < y, y, z); break;
      case 2: r = larger(x, y); break;
      case 3: r = square_root(x); break;
      case 4: r = round_to_even(x); break;
      case 5: r = broadcast(sum_lanes(x)); break;
      case 6: r = x / y; break;
      case 7: r = nearest_pixel(x); break;
      case 8:
        for (int p = 0; p < REGS; p++) regs[p] = relu(regs[p]);
        __builtin_memcpy(&r, regs, sizeof r);
        break;
      case 9: r = x * y; break;
      case 10: r = x + y; break;
      default:
        for (int64_t k = i; k < i + LANES; k += 2) {
          double v;
          __builtin_memcpy(&v, a + k, sizeof v);
          v = job->batch_size == 11 ? exponential(v) : logarithm(v);
          __builtin_memcpy(job->logits + k, &v, sizeof v);
        }
        continue;
    }
    __builtin_memcpy(job->logits + i, &r, sizeof r);
  }
  restore_float_mode(before);
}
