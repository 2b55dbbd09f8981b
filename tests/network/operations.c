// The engine's operations one by one; its source stands before this text. Of the job, `parameters`,
// `velocity` and `statistics` are the operands, `logits` takes the results, `count` numbers each, a
// multiple of LANES, and `batch_size` says which operation. The last two are in double precision.

void operate(Job *job) {
  const uint64_t before = enter();
  const float *a = job->parameters, *b = job->velocity, *c = job->statistics;
  for (int64_t i = 0; i < job->count; i += LANES) {
    vec x, y, z, r = zero();
    reg parts[PARTS];
    __builtin_memcpy(&x, a + i, sizeof x), __builtin_memcpy(&y, b + i, sizeof y);
    __builtin_memcpy(&z, c + i, sizeof z), __builtin_memcpy(parts, a + i, sizeof x);
    switch (job->batch_size) {
      case 0: r = fused(x, y, z); break;
      case 1: r = choose(x < y, y, z); break;
      case 2: r = larger(x, y); break;
      case 3: r = root(x); break;
      case 4: r = nearest(x); break;
      case 5: r = all(total(x)); break;
      case 6: r = x / y; break;
      case 7: r = pixel(x); break;
      case 8:
        for (int p = 0; p < PARTS; p++) parts[p] = positive(parts[p]);
        __builtin_memcpy(&r, parts, sizeof r);
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
  leave(before);
}
