/* A CUDA runtime without a GPU: one device, on which every call succeeds and does nothing.
   Autograd wants a device, streams and events even where FakeTensorMode launches no kernel. Built twice: preloaded as
   the runtime, and with -DDRIVER as libcuda.so.1, which torch opens by name. */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

typedef int Status;
#define OK 0
#define OUT_OF_MEMORY 2
#define NOT_SUPPORTED 801
#define VERSION 13000
#define CARD_BYTES ((size_t)80 << 30)
#define LARGEST_ALLOCATION ((size_t)512 << 20)
#define DOES_NOTHING(name) Status name(void) { return OK; }
#define REFUSES(name) Status name(void) { return NOT_SUPPORTED; }

Status cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) { *flags = 0; *active = 1; return OK; }

#ifdef DRIVER

static int context;
Status cuInit(unsigned flags) { return OK; }
Status cuDriverGetVersion(int *version) { *version = VERSION; return OK; }
Status cuDeviceGetCount(int *count) { *count = 1; return OK; }
Status cuDeviceGet(int *device, int ordinal) { *device = ordinal; return OK; }
Status cuDeviceGetAttribute(int *value, int attribute, int device) { *value = 1; return OK; }
Status cuDevicePrimaryCtxRetain(void **found, int device) { *found = &context; return OK; }
Status cuCtxGetCurrent(void **found) { *found = &context; return OK; }
Status cuCtxSetCurrent(void *chosen) { return OK; }
Status cuGetErrorString(int error, const char **text) { *text = "pretended"; return OK; }
REFUSES(cuFuncGetAttribute) REFUSES(cuFuncSetAttribute) REFUSES(cuFuncSetCacheConfig)
REFUSES(cuLaunchCooperativeKernel) REFUSES(cuLaunchKernel) REFUSES(cuLinkAddData_v2) REFUSES(cuLinkComplete)
REFUSES(cuLinkCreate_v2) REFUSES(cuModuleGetFunction) REFUSES(cuModuleLoad) REFUSES(cuModuleLoadData)
REFUSES(cuModuleLoadDataEx) REFUSES(cuModuleUnload) REFUSES(cuOccupancyMaxActiveBlocksPerMultiprocessor)
REFUSES(cuPointerGetAttribute) REFUSES(cuTensorMapEncodeTiled)

#else

/* Beginnings of the runtime's own structures; what follows stays as the caller made it. */
struct cudaDeviceProp {
  char name[256], uuid[16], luid[8];
  unsigned mask;
  size_t totalGlobalMem, sharedMemPerBlock;
  int regsPerBlock, warpSize;
  size_t memPitch;
  int maxThreadsPerBlock, maxThreadsDim[3], maxGridSize[3];
  size_t totalConstMem;
  int major, minor;
  size_t textureAlignment, texturePitchAlignment;
  int multiProcessorCount;
};
struct cudaPointerAttributes { int type, device; void *devicePointer, *hostPointer; };

static _Thread_local int current;
static Status make(void **handle) { *handle = malloc(8); return OK; }
static Status take(void **memory, size_t bytes) {
  if (posix_memalign(memory, 512, bytes ? bytes : 512)) return OUT_OF_MEMORY;
  memset(*memory, 0, bytes);
  return OK;
}

Status cudaGetDeviceCount(int *count) { *count = 1; return OK; }
Status cudaGetDevice(int *device) { *device = current; return OK; }
Status cudaSetDevice(int device) { current = device; return OK; }
Status cudaGetDeviceProperties(struct cudaDeviceProp *found, int device) {
  memset(found, 0, sizeof *found);
  strcpy(found->name, "Pretended H100");
  found->major = 9;
  found->warpSize = 32;
  found->multiProcessorCount = 132;
  found->totalGlobalMem = CARD_BYTES;
  found->sharedMemPerBlock = 49152;
  found->regsPerBlock = 65536;
  found->maxThreadsPerBlock = found->maxThreadsDim[0] = found->maxThreadsDim[1] = 1024;
  found->maxThreadsDim[2] = 64;
  found->maxGridSize[0] = 2147483647;
  found->maxGridSize[1] = found->maxGridSize[2] = 65535;
  return OK;
}
Status cudaDeviceGetAttribute(int *value, int attribute, int device) { *value = 1; return OK; }
Status cudaDriverGetVersion(int *version) { *version = VERSION; return OK; }
Status cudaRuntimeGetVersion(int *version) { *version = VERSION; return OK; }
Status cudaDeviceGetStreamPriorityRange(int *low, int *high) { *low = 0; *high = -5; return OK; }
Status cudaDeviceCanAccessPeer(int *can, int device, int peer) { *can = 1; return OK; }
Status cudaDeviceGetPCIBusId(char *name, int length, int device) { strncpy(name, "0000:00:00.0", length); return OK; }
Status cudaMemGetInfo(size_t *left, size_t *total) { *left = *total = CARD_BYTES; return OK; }
DOES_NOTHING(cudaDeviceSynchronize) DOES_NOTHING(cudaDeviceEnablePeerAccess)
DOES_NOTHING(cudaGetLastError) DOES_NOTHING(cudaPeekAtLastError)

Status cudaStreamCreateWithPriority(void **stream, unsigned flags, int priority) { return make(stream); }
Status cudaStreamCreateWithFlags(void **stream, unsigned flags) { return make(stream); }
Status cudaStreamIsCapturing(void *stream, int *capturing) { *capturing = 0; return OK; }
Status cudaStreamGetCaptureInfo(void *stream, int *capturing) { *capturing = 0; return OK; }
Status cudaStreamGetCaptureInfo_v3(void *stream, int *capturing) { *capturing = 0; return OK; }
DOES_NOTHING(cudaStreamDestroy) DOES_NOTHING(cudaStreamQuery) DOES_NOTHING(cudaStreamSynchronize)
DOES_NOTHING(cudaStreamWaitEvent) DOES_NOTHING(cudaThreadExchangeStreamCaptureMode)
Status cudaEventCreate(void **event) { return make(event); }
Status cudaEventCreateWithFlags(void **event, unsigned flags) { return make(event); }
Status cudaEventElapsedTime(float *milliseconds, void *start, void *end) { *milliseconds = 1; return OK; }
Status cudaEventElapsedTime_v2(float *milliseconds, void *start, void *end) { *milliseconds = 1; return OK; }
DOES_NOTHING(cudaEventDestroy) DOES_NOTHING(cudaEventQuery) DOES_NOTHING(cudaEventRecord)
DOES_NOTHING(cudaEventRecordWithFlags) DOES_NOTHING(cudaEventSynchronize)

Status cudaMalloc(void **memory, size_t bytes) {
  *memory = NULL;
  return bytes > LARGEST_ALLOCATION ? OUT_OF_MEMORY : take(memory, bytes); /* a tensor that is not fake */
}
Status cudaHostAlloc(void **memory, size_t bytes, unsigned flags) { return take(memory, bytes); }
Status cudaMallocHost(void **memory, size_t bytes) { return take(memory, bytes); }
Status cudaFree(void *memory) { free(memory); return OK; }
Status cudaFreeHost(void *memory) { free(memory); return OK; }
Status cudaMemset(void *memory, int value, size_t bytes) { memset(memory, value, bytes); return OK; }
Status cudaMemsetAsync(void *memory, int value, size_t bytes, void *stream) { memset(memory, value, bytes); return OK; }
Status cudaMemcpy(void *to, const void *from, size_t bytes, int kind) { memcpy(to, from, bytes); return OK; }
Status cudaMemcpyAsync(void *to, const void *from, size_t bytes, int kind, void *stream) {
  memcpy(to, from, bytes);
  return OK;
}
Status cudaPointerGetAttributes(struct cudaPointerAttributes *found, const void *memory) {
  memset(found, 0, sizeof *found);
  return OK;
}
DOES_NOTHING(cudaHostRegister) DOES_NOTHING(cudaHostUnregister) DOES_NOTHING(cudaMemPoolSetAttribute)
Status cudaDeviceGetDefaultMemPool(void **pool, int device) { return make(pool); }

DOES_NOTHING(cudaLaunchKernel) DOES_NOTHING(cudaLaunchKernelExC) DOES_NOTHING(cudaFuncSetAttribute)
Status cudaFuncGetAttributes(void *found, const void *function) { memset(found, 0, 64); return OK; }
Status cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *count) { *count = 1; return OK; }
Status cudaGetDriverEntryPointByVersion(const char *name, void **entry, unsigned version, unsigned long long flags, int *status) {
  *entry = NULL;
  if (status) *status = 1;
  return OK;
}
REFUSES(cudaIpcGetMemHandle) REFUSES(cudaIpcGetEventHandle)

#endif
