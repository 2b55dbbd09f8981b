// Reads a job of the engine from one file, does it and writes it into another, so that the engine
// can be built by any compiler, for any processor, with sanitizers or without. Its source and
// operations.c stand before this text; harness.py writes and reads the files.

#include <stdio.h>
#include <stdlib.h>

static void *array(FILE *from, int64_t *size) {
  if (fread(size, sizeof *size, 1, from) != 1) exit(3);
  if (*size < 0) return NULL;
  // No slack at the end, so that a read beyond it is seen.
  char *content = malloc((size_t)*size);
  if (fread(content, 1, (size_t)*size, from) != (size_t)*size) exit(3);
  return content;
}

int main(int argc, char **argv) {
  FILE *from = argc == 3 ? fopen(argv[1], "rb") : NULL;
  FILE *to = argc == 3 ? fopen(argv[2], "wb") : NULL;
  int64_t function, sizes[ARRAYS];
  Job job;
  if (!from || !to || fread(&function, sizeof function, 1, from) != 1 ||
      fread(&job, sizeof job, 1, from) != 1)
    return 3;
#define READ(i, name) job.name = array(from, sizes + i);
  FOR_EACH_ARRAY(READ)
  char *memory = NULL;
  if (function < 2) {
    job.memory_size = memory_for(&job);
    memory = malloc((size_t)job.memory_size + 64);
    job.memory = memory + (64 - (uintptr_t)memory % 64) % 64;
  }
  void (*const functions[])(Job *) = {train, predict, score, operate};
  functions[function](&job);
  fwrite(&job, sizeof job, 1, to);
#define WRITE(i, name) if (sizes[i] >= 0) fwrite(job.name, 1, (size_t)sizes[i], to);
  FOR_EACH_ARRAY(WRITE)
  free(memory);
#define FREE(i, name) free(job.name);
  FOR_EACH_ARRAY(FREE)
  return fclose(to) || fclose(from);
}
