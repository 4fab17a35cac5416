/* A stand-in for libnvidia-ml.so.1, for machines without a GPU: nvidia-ml-py binds to whatever bears that name.
   FAKE_NVML_COUNT devices; the last one of three or more has fallen off the bus. */
#include <stdio.h>
#include <stdlib.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_FOUND = 6, GPU_IS_LOST = 15 };
typedef int Result;
typedef struct { int index; } Device;
typedef struct { unsigned long long total, free, used; } Memory;

static Device devices[16];

static int count(void) {
    const char *text = getenv("FAKE_NVML_COUNT");
    return text ? atoi(text) : 2;
}

Result nvmlInit_v2(void) {
    for (int i = 0; i < 16; i++) devices[i].index = i;
    return SUCCESS;
}
Result nvmlInitWithFlags(unsigned flags) { (void)flags; return nvmlInit_v2(); }
Result nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(Result result) { return result == GPU_IS_LOST ? "GPU is lost" : "fake"; }
Result nvmlDeviceGetCount_v2(unsigned *out) { *out = (unsigned)count(); return SUCCESS; }
Result nvmlDeviceGetHandleByIndex_v2(unsigned index, Device **out) {
    if ((int)index >= count()) return INVALID_ARGUMENT;
    *out = &devices[index];
    return SUCCESS;
}
Result nvmlDeviceGetName(Device *device, char *text, unsigned length) {
    (void)device;
    snprintf(text, length, "Tesla T4");
    return SUCCESS;
}
Result nvmlDeviceGetUUID(Device *device, char *text, unsigned length) {
    snprintf(text, length, "GPU-00000000-0000-0000-0000-%012d", device->index);
    return SUCCESS;
}
Result nvmlDeviceGetMinorNumber(Device *device, unsigned *out) {
    *out = (unsigned)(count() - 1 - device->index);
    return SUCCESS;
}
Result nvmlDeviceGetMemoryInfo(Device *device, Memory *memory) {
    if (count() > 2 && device->index == count() - 1) return GPU_IS_LOST;
    memory->total = 16ULL << 30;
    memory->used = memory->free = 8ULL << 30;
    return SUCCESS;
}

/* FAKE_NVML_USERS: a process that computes on the first device; another one merely holds memory there. */
typedef struct { unsigned pid; unsigned long long stamp; unsigned sm, memory, encoder, decoder; } Sample;
Result nvmlDeviceGetProcessUtilization(Device *device, Sample *out, unsigned *size, unsigned long long since) {
    const char *user = getenv("FAKE_NVML_USERS");
    if (count() > 2 && device->index == count() - 1) return GPU_IS_LOST;
    if (!user || !since || device->index || *size < 2) return NOT_FOUND;
    out[0] = (Sample){(unsigned)atoi(user), since, 40, 0, 0, 0};
    out[1] = (Sample){1, since, 0, 0, 0, 0};
    *size = 2;
    return SUCCESS;
}
