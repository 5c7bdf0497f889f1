module.exports = { name: 'sealbd', napi_versions: [8] };
