-- Health of Clusters and Topics for Argo CD: from the conditions that the operator writes.
-- Argo CD runs it with the resource in `obj` (Lua 5.1 without libraries but string, table, math).
local health = {status = "Progressing", message = "waiting for the operator"}
local status = obj.status
if obj.metadata.deletionTimestamp ~= nil then
  health.message = "is being deleted"
  return health
end
if status == nil or status.conditions == nil or status.observedGeneration ~= obj.metadata.generation then
  return health
end
local found = {}
for _, condition in ipairs(status.conditions) do
  found[condition.type] = condition
end
local ready, reconciling, stalled = found["Ready"], found["Reconciling"], found["Stalled"]
if stalled ~= nil and stalled.status == "True" then
  -- It stays so until somebody changes something.
  health.status = "Degraded"
  health.message = stalled.message
elseif ready ~= nil and ready.status == "True" then
  -- Also while brokers restart one by one or partitions move: clients are served.
  health.status = "Healthy"
  health.message = ready.message
elseif ready ~= nil and ready.status == "False" and (reconciling == nil or reconciling.status ~= "True") then
  health.status = "Degraded"
  health.message = ready.message
elseif ready ~= nil then
  health.message = ready.message
end
return health
